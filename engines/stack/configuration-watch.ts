/** Watches machine.json by its modification time, each 500 ms: cheap, and works on every file system. */
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import type { Clock } from '../../schema/domain/seams.ts';

const POLL_MS = 500;

const digestOf = (text: string): string => createHash('sha256').update(text).digest('hex');

async function textOf(machineFile: string): Promise<string | null> {
  try {
    return await readFile(machineFile, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/** SHA-256 of the file, hex; null when there is none. */
export async function configurationDigest(machineFile: string): Promise<string | null> {
  const text = await textOf(machineFile);
  return text === null ? null : digestOf(text);
}

/** What of the file each worker reads; all read `site`, `machineId` and `security`, and but for the keeper `temporal`. Others read nothing of it. */
const partsRead = { keeper: 'hosts', host: 'hosts', proxy: 'proxies', repository: 'repositories' } as const;
export type ConfiguredWorker = keyof typeof partsRead;
/** The keeper first, as at the start. */
export const configuredWorkers = Object.keys(partsRead) as ConfiguredWorker[];
export type ConfigurationParts = Record<ConfiguredWorker, string>;

/** Digest of what each worker reads: one whose part is the same need not be started anew, and goes on with its work. */
export async function configurationParts(machineFile: string): Promise<ConfigurationParts> {
  const text = (await textOf(machineFile)) ?? '{}';
  const digests = configuredWorkers.map((worker) => [worker, digestOf(partOf(text, worker))]);
  return Object.fromEntries(digests) as ConfigurationParts;
}

/** What a repository worker reads again by itself while it runs. */
const withoutLimits = (part: unknown): unknown =>
  Array.isArray(part) ? part.map((each: object) => ({ ...each, limits: undefined })) : part;

function partOf(text: string, worker: ConfiguredWorker): string {
  try {
    const {
      site,
      machineId,
      security,
      workers,
      temporal,
      [partsRead[worker]]: part,
    } = JSON.parse(text) as Record<string, unknown>;
    const caps = (workers as Record<string, unknown> | undefined)?.[worker];
    const read = worker === 'repository' ? withoutLimits(part) : part;
    const way = worker === 'keeper' ? undefined : temporal;
    return JSON.stringify([site, machineId, security, caps, read, way]);
  } catch {
    // Damaged: each worker shall say so.
    return text;
  }
}

const modificationOf = (file: string): Promise<string | null> =>
  stat(file, { bigint: true }).then(
    ({ mtimeNs, ino, size }) => `${mtimeNs} ${ino} ${size}`,
    () => null,
  );

/**
 * Calls `apply` with the digest of each new content, one call at a time, until the signal aborts. `applied`: digest
 * the children run with at the beginning.
 */
export async function watchConfiguration(
  machineFile: string,
  applied: string | null,
  clock: Clock,
  signal: AbortSignal,
  onTrouble: (error: unknown) => void,
  apply: (digest: string | null) => Promise<void>,
): Promise<void> {
  let seen: string | null | undefined;
  let current = applied;
  while (!signal.aborted) {
    const modification = await modificationOf(machineFile);
    if (modification !== seen) {
      try {
        const digest = await configurationDigest(machineFile);
        if (digest !== current) await apply(digest);
        current = digest;
        seen = modification;
      } catch (error) {
        // Looked at again: it may be unreadable for a moment only.
        onTrouble(error);
      }
    }
    await clock.sleep(POLL_MS, signal).catch(() => undefined);
  }
}
