/**
 * `stack.json`: what the supervisor runs, rewritten whole at each change. Written synchronously: between the start of
 * a child and its record must lie as little as possible, since a killed supervisor's children are found by it.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import { isRunning, type ProcessIdentity } from './process-identity.ts';

export type ChildState = 'starting' | 'ready' | 'waiting' | 'stopping' | 'stopped';

export type ChildStatus = {
  name: string;
  /** Null while no process runs. */
  pid: number | null;
  startTicks: string | null;
  /** `waiting`: died, and is started again after a pause. */
  state: ChildState;
  /** Deaths not asked for, since the stack started. */
  restarts: number;
  /** "exit code 1" or "signal SIGKILL"; null before the first. */
  lastExit: string | null;
  /** When it entered its state, ISO 8601. */
  since: string;
};

export type StackConnections = {
  /** `codecUrl`: where UI and CLI have payloads decoded; null: they are not encrypted. */
  temporal: { address: string; uiUrl: string; namespace: string; codecUrl: string | null };
  database: { socket: string; user: string; passwordFile: string; name: string };
};

export type StackFile = StackConnections & {
  pid: number;
  startTicks: string;
  startedAt: string;
  /** All children ready once. */
  state: 'starting' | 'running' | 'stopping';
  /** SHA-256 of the machine.json that the running children were started with; null: there was none. */
  configuration: { digest: string | null; state: 'applied' | 'applying' };
  children: ChildStatus[];
};

export function writeStackFile(file: string, content: StackFile): void {
  writeFileSync(`${file}.new`, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/**
 * Null when no stack was ever started here, or the file is not what we write: a loss of power left it empty, and nobody
 * outlived that. STORAGE_ERROR when it cannot be read.
 */
export function readStackFile(file: string): StackFile | null {
  const text = readIfThere(file);
  try {
    const content = JSON.parse(text ?? 'null') as StackFile | null;
    return Number.isInteger(content?.pid) && Array.isArray(content?.children) ? content : null;
  } catch {
    return null;
  }
}

function readIfThere(file: string): string | null {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new TidemarkError('STORAGE_ERROR', `cannot read ${file}: ${messageOf(error)}`, { file }, error);
  }
}

export const isSupervisorRunning = (stack: StackFile): boolean => isRunning(stack);

/** Children of the file that still run, whoever started them. */
export function runningChildren(stack: StackFile): (ProcessIdentity & { name: string })[] {
  return stack.children.flatMap(({ name, pid, startTicks }) =>
    pid !== null && startTicks !== null && isRunning({ pid, startTicks }) ? [{ name, pid, startTicks }] : [],
  );
}
