/** What a run makes in a folder, written down before it is made: so that it can be taken up, finished or removed. */
import { readdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { DiskKey, RunKey } from '../../schema/domain/ids.ts';
import { alreadyThere, asStorageError, guarded, writeDurably } from './files.ts';

export type TargetFormat = 'raw' | 'qcow2';
/** `name`: of the file, without folder. */
export type TargetDisk = { diskKey: DiskKey; sizeBytes: number; name: string };
export type TargetState = {
  run: RunKey;
  format: TargetFormat;
  disks: TargetDisk[];
  /** No other run has these names: what is of them in the folder is ours. */
  claimed: boolean;
  /** Of the daemons, qcow2 only: the restore folder's own path may be too long for sockets. */
  socketFolder: string | null;
};

const PREFIX = '.tidemark-restore-';
const MAX_NAME_BYTES = 255;
const stateFile = (folder: string, run: RunKey): string => path.join(folder, `${PREFIX}${run}.json`);

export const partialOf = (folder: string, name: string): string => path.join(folder, `${name}.partial`);
export const cursorOf = (folder: string, run: RunKey, index: number): string =>
  path.join(folder, `${PREFIX}${run}-${index}.cursor`);
/** An image while it is made. */
export const makingOf = (folder: string, run: RunKey, index: number): string =>
  path.join(folder, `${PREFIX}${run}-${index}.making`);
export const socketOf = (socketFolder: string, index: number): string => path.join(socketFolder, `${index}.sock`);

/** BAD_REQUEST: not a plain file name, one that two disks share, or one that another's `.partial` has. */
export function checkNames(disks: readonly TargetDisk[]): void {
  const refuse = (name: string, why: string): TidemarkError =>
    new TidemarkError('BAD_REQUEST', `${JSON.stringify(name)} ${why}`, { name });
  for (const { name } of disks) {
    const plain = name === path.basename(name) && !name.startsWith('.') && name !== '' && !name.includes('\0');
    if (!plain) throw refuse(name, 'is not a file name');
    if (name.endsWith('.partial')) throw refuse(name, 'ends in .partial, which marks unfinished files');
    if (Buffer.byteLength(`${name}.partial`) > MAX_NAME_BYTES) throw refuse(name, 'is too long for a file name');
    if (disks.filter((other) => other.name === name).length > 1) throw refuse(name, 'is the name of two disks');
  }
}

/** Null: the run made nothing here. */
export async function readState(folder: string, run: RunKey): Promise<TargetState | null> {
  const file = stateFile(folder, run);
  try {
    const state = JSON.parse(await readFile(file, 'utf8')) as TargetState;
    // Whoever may write in the folder could have put it there.
    checkNames(state.disks);
    return state;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw asStorageError(file, error);
  }
}

export const writeState = (folder: string, state: TargetState): Promise<void> =>
  guarded(stateFile(folder, state.run), () => writeDurably(stateFile(folder, state.run), JSON.stringify(state)));

/**
 * TARGET_EXISTS: another run is about to make a file of one of these names. Asked after our own state is written: of
 * two runs that begin at once, at least one sees the other.
 */
export async function refuseOtherRuns(folder: string, state: TargetState): Promise<void> {
  const own = path.basename(stateFile(folder, state.run));
  for (const entry of await guarded(folder, () => readdir(folder))) {
    const run = new RegExp(`^${PREFIX.replace('.', '\\.')}([a-z0-9]{12})\\.json$`).exec(entry)?.[1];
    if (run === undefined || entry === own) continue;
    const other = await readState(folder, run as RunKey).catch(() => null);
    const shared = other?.disks.find(({ name }) => state.disks.some((disk) => disk.name === name));
    if (shared) throw alreadyThere(partialOf(folder, shared.name));
  }
}

/** With what a killed worker may have left half written. */
export async function removeState(folder: string, state: TargetState): Promise<void> {
  const { run, disks, socketFolder } = state;
  const own = [...disks.keys()].flatMap((index) => [cursorOf(folder, run, index), makingOf(folder, run, index)]);
  for (const file of own) for (const each of [file, `${file}.new`]) await rm(each, { force: true });
  if (socketFolder !== null) await rm(socketFolder, { recursive: true, force: true });
  await rm(`${stateFile(folder, run)}.new`, { force: true });
  await rm(stateFile(folder, run), { force: true });
}
