/**
 * Client of one VM's QEMU guest agent: calls are served one after another over a connection that is opened at need
 * and kept. Every call has its own time limit; one that runs over it costs the connection, since its reply may come later.
 */
import { errorCodeOf, messageOf, TidemarkError, type ErrorCode } from '../../../schema/domain/errors.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import { openAgentConnection, unreachable, type AgentAddress, type AgentConnection } from './agent-connection.ts';

export type GuestFileSystem = {
  name: string;
  mountpoint: string;
  type: string;
  usedBytes?: number;
  totalBytes?: number;
};
export type GuestCommand = { path: string; args: string[]; capture: boolean };
/** `exitCode` null: ended by `signal`, or the guest does not say. Output is what the agent kept of it. */
export type GuestCommandResult = {
  exitCode: number | null;
  signal: number | null;
  stdout: Buffer;
  stderr: Buffer;
  truncated: boolean;
};

/** All throw GUEST_UNREACHABLE; those about freezing GUEST_FREEZE_FAILED once the agent was asked. */
export type GuestAgent = {
  readonly connected: boolean;
  sync(timeoutMs?: number): Promise<void>;
  /** Number of file systems frozen. GUEST_FREEZE_FAILED: it was asked, some may be frozen, thaw; GUEST_UNREACHABLE: it was not. */
  freeze(timeoutMs: number): Promise<number>;
  /** Number of file systems thawed; 0 when none was frozen. */
  thaw(timeoutMs?: number): Promise<number>;
  status(timeoutMs?: number): Promise<'frozen' | 'thawed'>;
  info(timeoutMs?: number): Promise<{ version: string; commands: string[] }>;
  fsinfo(timeoutMs?: number): Promise<GuestFileSystem[]>;
  /** Starts a program; its process id. An error with `asked: false` in its details: it was not even asked to. */
  start(command: GuestCommand, timeoutMs?: number): Promise<number>;
  /** Null while it runs. The end can be asked for ONCE: record it at first sight. */
  result(pid: number, timeoutMs?: number): Promise<GuestCommandResult | null>;
  /** start, then result until it ended; `timeoutMs` for all of it. The program is not killed at the limit. */
  exec(command: GuestCommand, timeoutMs: number): Promise<GuestCommandResult>;
  close(): void;
};

const defaultTimeoutMs = 5_000;
const pollMs = 100;

export function createGuestAgent(at: AgentAddress, seams: Seams): GuestAgent {
  const call = createCaller(at, seams);
  const start: GuestAgent['start'] = async ({ path, args, capture }, timeoutMs = defaultTimeoutMs) => {
    const started = await call.ask('guest-exec', { path, arg: args, 'capture-output': capture }, timeoutMs);
    return numberIn((started as { pid?: unknown } | null)?.pid, at, 'guest-exec', 'GUEST_UNREACHABLE');
  };
  const result: GuestAgent['result'] = async (pid, timeoutMs = defaultTimeoutMs) =>
    asResult(await call.ask('guest-exec-status', { pid }, timeoutMs));
  return {
    get connected() {
      return call.connected();
    },
    sync: async (timeoutMs = defaultTimeoutMs) => void (await call.ask(null, undefined, timeoutMs)),
    freeze: async (timeoutMs) => {
      const count = await call.ask('guest-fsfreeze-freeze', undefined, timeoutMs, 'GUEST_FREEZE_FAILED');
      return numberIn(count, at, 'freeze', 'GUEST_FREEZE_FAILED');
    },
    thaw: async (timeoutMs = defaultTimeoutMs) => {
      const count = await call.ask('guest-fsfreeze-thaw', undefined, timeoutMs, 'GUEST_FREEZE_FAILED');
      return numberIn(count, at, 'thaw', 'GUEST_FREEZE_FAILED');
    },
    status: async (timeoutMs = defaultTimeoutMs) =>
      (await call.ask('guest-fsfreeze-status', undefined, timeoutMs)) === 'frozen' ? 'frozen' : 'thawed',
    info: async (timeoutMs = defaultTimeoutMs) => asInfo(await call.ask('guest-info', undefined, timeoutMs)),
    fsinfo: async (timeoutMs = defaultTimeoutMs) =>
      asFileSystems(await call.ask('guest-get-fsinfo', undefined, timeoutMs)),
    start,
    result,
    exec: async (command, timeoutMs) => {
      const end = seams.clock.monotonic() + timeoutMs;
      const pid = await start(command, Math.min(timeoutMs, defaultTimeoutMs));
      while (seams.clock.monotonic() < end) {
        const ended = await result(pid);
        if (ended) return ended;
        await seams.clock.sleep(pollMs);
      }
      throw unreachable(at, `still runs ${command.path} (pid ${pid}) after ${timeoutMs} ms`);
    },
    close: () => call.close(),
  };
}

/** Serial calls: connect if need be, synchronize, ask. */
function createCaller(at: AgentAddress, seams: Seams) {
  let connection: AgentConnection | null = null;
  let last: Promise<unknown> = Promise.resolve();

  const drop = (): void => {
    connection?.close();
    connection = null;
  };

  const inStep = async (timeoutMs: number): Promise<AgentConnection> => {
    const end = seams.clock.monotonic() + timeoutMs;
    if (!connection?.open) connection = await openAgentConnection(at, seams, timeoutMs);
    await connection.synchronize(end - seams.clock.monotonic());
    return connection;
  };

  const askNow = async (
    name: string | null,
    args: Record<string, unknown> | undefined,
    timeoutMs: number,
    refusal: ErrorCode,
  ): Promise<unknown> => {
    const end = seams.clock.monotonic() + timeoutMs;
    const synchronized = await inStep(timeoutMs).catch((error: unknown) => {
      throw new TidemarkError(
        errorCodeOf(error) ?? 'GUEST_UNREACHABLE',
        messageOf(error),
        { vm: at.vmId, socket: at.socket, asked: false },
        error,
      );
    });
    if (name === null) return undefined;
    // From here on it was asked, and may be done: an error has the code of a refusal, whatever went wrong.
    const reply = await synchronized.command(name, args, end - seams.clock.monotonic()).catch((error: unknown) => {
      throw new TidemarkError(refusal, messageOf(error), { vm: at.vmId, socket: at.socket, command: name }, error);
    });
    if (reply?.error === undefined && reply) return reply.return;
    if (!reply) drop();
    const said = reply?.error ? `refused ${name}: ${reply.error.desc ?? reply.error.class ?? 'no reason given'}` : null;
    throw new TidemarkError(
      refusal,
      `guest agent of vm ${at.vmId} at ${at.socket} ${said ?? `did not answer ${name} within ${Math.round(timeoutMs)} ms`}`,
      { vm: at.vmId, socket: at.socket, command: name, answered: reply !== null, class: reply?.error?.class },
    );
  };

  return {
    connected: () => connection?.open ?? false,
    ask: (
      name: string | null,
      args: Record<string, unknown> | undefined,
      timeoutMs: number,
      refusal: ErrorCode = 'GUEST_UNREACHABLE',
    ): Promise<unknown> => {
      const asked = last.then(() =>
        askNow(name, args, timeoutMs, refusal).catch((error: unknown) => {
          // After a refusal in so many words the conversation is in step; after anything else it may not be.
          if (!wasAnswered(error)) drop();
          throw error;
        }),
      );
      last = asked.catch(() => undefined);
      return asked;
    },
    close: drop,
  };
}

const wasAnswered = (error: unknown): boolean =>
  errorCodeOf(error) !== undefined && (error as TidemarkError).details['answered'] === true;

/** It was asked and answered: only what came back makes no sense. */
function numberIn(value: unknown, at: AgentAddress, what: string, code: ErrorCode): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  const message = `guest agent of vm ${at.vmId} at ${at.socket} gave no number for ${what}`;
  throw new TidemarkError(code, message, { vm: at.vmId, socket: at.socket });
}

function asInfo(value: unknown): { version: string; commands: string[] } {
  const info = (value ?? {}) as { version?: string; supported_commands?: { name?: string; enabled?: boolean }[] };
  const commands = (info.supported_commands ?? []).filter((row) => row.enabled === true).map((row) => String(row.name));
  return { version: info.version ?? '', commands };
}

function asFileSystems(value: unknown): GuestFileSystem[] {
  const rows = Array.isArray(value) ? (value as Record<string, unknown>[]) : [];
  return rows.map((row) => ({
    name: String(row['name']),
    mountpoint: String(row['mountpoint']),
    type: String(row['type']),
    ...(typeof row['used-bytes'] === 'number' ? { usedBytes: row['used-bytes'] } : {}),
    ...(typeof row['total-bytes'] === 'number' ? { totalBytes: row['total-bytes'] } : {}),
  }));
}

function asResult(value: unknown): GuestCommandResult | null {
  const status = (value ?? {}) as Record<string, unknown>;
  if (status['exited'] !== true) return null;
  const bytes = (field: string): Buffer =>
    Buffer.from(typeof status[field] === 'string' ? status[field] : '', 'base64');
  return {
    exitCode: typeof status['exitcode'] === 'number' ? status['exitcode'] : null,
    signal: typeof status['signal'] === 'number' ? status['signal'] : null,
    stdout: bytes('out-data'),
    stderr: bytes('err-data'),
    truncated: status['out-truncated'] === true || status['err-truncated'] === true,
  };
}
