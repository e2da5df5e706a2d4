/** Temporal's development server: one process with its UI and a SQLite file, on loopback only. */
import { searchAttributes } from './search-attributes.ts';
import type { ChildSpec } from './child.ts';
import type { StackLayout } from './layout.ts';
import type { StackPorts } from './ports.ts';
import type { StackTools } from './tools.ts';

export const TEMPORAL_NAMESPACE = 'tidemark';

/**
 * A shard's queues of tasks may be read 20 times a second, and this server has one shard: after a dozen steps one after
 * another every way to a worker took 40 ms.
 */
const queuePolls = ['transfer', 'timer', 'visibility'].map((queue) => `history.${queue}ProcessorMaxPollRPS=1000`);

const dynamicConfig = [
  'matching.useNewMatcher=true',
  'matching.enableFairness=true',
  'frontend.WorkerHeartbeatsEnabled=true',
  'frontend.ListWorkersEnabled=true',
  // Steps of `control` start on the worker that asks for them: a way through the server less, and a commit.
  'system.enableActivityEagerExecution=true',
  ...queuePolls,
];

/**
 * `synchronous=FULL` with WAL: a session that was told to a person survives a loss of power. NORMAL is about twice as
 * fast on small workflows and may lose the last commits; a backup's steps are few and long, so that speed buys nothing.
 */
const pragmas = ['journal_mode=WAL', 'synchronous=FULL'];

/** Its heap is small and marking it took 7 % of its processor time: collected at half the default rate, for some more memory. */
const COLLECTED_AT_PERCENT = '200';

/** Each of its calls runs in a routine of its own, whose stack grew by copying it several times: 8 % of its processor time. */
const STACKS_OF_USUAL_SIZE = 'adaptivestackstart=1';

const eachWith = (flag: string, values: string[]): string[] => values.flatMap((value) => [flag, value]);

export async function isTemporalReady(httpPort: number, namespace: string): Promise<boolean> {
  try {
    const url = `http://127.0.0.1:${httpPort}/api/v1/namespaces/${namespace}`;
    const response = await fetch(url, { signal: AbortSignal.timeout(2000) });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}

/** `codecUrl`: where the UI has payloads decoded; null: they are in the clear. */
export function temporalChild(
  layout: StackLayout,
  tools: StackTools,
  ports: StackPorts,
  codecUrl: string | null,
): ChildSpec {
  const flags = [
    ['--ip', '127.0.0.1', '--port', String(ports.temporal), '--http-port', String(ports.http)],
    ['--ui-ip', '127.0.0.1', '--ui-port', String(ports.ui), '--metrics-port', String(ports.metrics)],
    codecUrl === null ? [] : ['--ui-codec-endpoint', codecUrl],
    ['--db-filename', layout.temporalDatabase, '--namespace', TEMPORAL_NAMESPACE],
    ['--log-format', 'json', '--log-level', 'warn'],
    eachWith('--sqlite-pragma', pragmas),
    eachWith(
      '--search-attribute',
      searchAttributes.map((name) => `${name}=Keyword`),
    ),
    eachWith('--dynamic-config-value', dynamicConfig),
  ];
  return {
    name: 'temporal',
    command: tools.temporal,
    args: ['server', 'start-dev', ...flags.flat()],
    environment: { GOGC: COLLECTED_AT_PERCENT, GODEBUG: STACKS_OF_USUAL_SIZE },
    readiness: { kind: 'probe', isReady: () => isTemporalReady(ports.http, TEMPORAL_NAMESPACE) },
    graceMs: 20_000,
  };
}
