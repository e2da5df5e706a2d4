/** Temporal for a worker process: one runtime, one connection, waited for as long as it takes. */
import { DefaultLogger, type Logger, type LogLevel, NativeConnection, Runtime } from '@temporalio/worker';
import { fileURLToPath } from 'node:url';
import type { DataConverter } from '@temporalio/common';
import { messageOf } from '../../schema/domain/errors.ts';
import type { Log, Seams } from '../../schema/domain/seams.ts';
import { stateLayout, type TemporalAddress } from './config.ts';
import { loadPayloadCodec } from './payload-codec.ts';
import { readTemporalTls } from './temporal-tls.ts';

/** How often workers tell Temporal that they live; control calls one silent after four times as long. */
const WORKER_HEARTBEAT = '5 s';
const encodedFailures = new URL('./encoded-failures.ts', import.meta.url);
/** Messages are small and many: packing them costs both ends processor time with every step. */
const grpcCompression = { codec: 'none' } as const;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 3000;

const levels: Record<LogLevel, keyof Omit<Log, 'child'>> = {
  TRACE: 'debug',
  DEBUG: 'debug',
  INFO: 'info',
  WARN: 'warn',
  ERROR: 'error',
};

/** Said of each queue that only activities are served on, which is as it should be. */
const noise = /^No workflows registered/;

/** Temporal's own words in our log, from warnings on. */
export const temporalLogger = (log: Log): Logger =>
  new DefaultLogger('WARN', ({ level, message, meta }) => {
    if (!noise.test(message)) log[levels[level]](message, meta);
  });

/** Once per process, before anything else of Temporal. Signals are ours to handle. */
export function installRuntime(log: Log): void {
  Runtime.install({
    logger: temporalLogger(log),
    shutdownSignals: [],
    workerHeartbeatInterval: WORKER_HEARTBEAT,
    telemetryOptions: { logging: { filter: { core: 'WARN', other: 'ERROR' }, forward: {} } },
  });
}

/** How payloads and failures are encrypted here; undefined: they are not. BAD_CONFIG. */
export async function loadDataConverter(): Promise<DataConverter | undefined> {
  const codec = await loadPayloadCodec(stateLayout().payloadKeysFile, process.env);
  if (codec === null) return undefined;
  return { payloadCodecs: [codec], failureConverterPath: fileURLToPath(encodedFailures) };
}

/** Resolves when the server answers and has the namespace; rejects with the signal's reason. */
export async function connectTemporal(
  { address, namespace, tls }: TemporalAddress,
  { clock, log }: Seams,
  signal: AbortSignal,
): Promise<NativeConnection> {
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
    signal.throwIfAborted();
    let connection: NativeConnection | null = null;
    try {
      // Read at each try: it may be renewed, or come, while the server is waited for.
      const certificates = tls ? { tls: await readTemporalTls(tls, stateLayout().configFolder) } : {};
      connection = await NativeConnection.connect({ address, grpcCompression, ...certificates });
      await connection.workflowService.describeNamespace({ namespace });
      return connection;
    } catch (error) {
      await connection?.close();
      log.warn('waits for Temporal', { address, namespace, error: messageOf(error) });
      await clock.sleep(pauseMs, signal);
    }
  }
}
