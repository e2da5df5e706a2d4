/**
 * Files a restore writes: made as NAME.partial, renamed only when whole. Every verb may be repeated with the same run
 * key; a small state file in the folder, named by it, says what the run made.
 */
import { mkdir, mkdtemp, readdir, realpath, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { DiskKey, RunKey } from '../../schema/domain/ids.ts';
import type { TargetAccess } from '../../schema/domain/restore-point.ts';
import { alreadyThere, answered, entryOf, goneError, guarded, moveExclusively, openTarget, syncPath } from './files.ts';
import { finishedFile } from './finished-file.ts';
import { createImage, endDaemon, endDaemonsBelow, ensureDaemon, EXPORT_NAME } from './qcow2-daemon.ts';
import {
  checkNames,
  cursorOf,
  makingOf,
  partialOf,
  readState,
  refuseOtherRuns,
  removeState,
  socketOf,
  type TargetDisk,
  type TargetFormat,
  type TargetState,
  writeState,
} from './target-state.ts';

export type { TargetFormat } from './target-state.ts';
export type TargetRequest = {
  run: RunKey;
  folder: string;
  /** From the machine's configuration; `folder` must lie in one of them. */
  allowedFolders: readonly string[];
  format: TargetFormat;
  disks: readonly TargetDisk[];
  /**
   * They were made before, and are only taken up: made anew, one that went away would be empty, and called restored. Absent:
   * they are made where they are not there.
   */
  begun?: boolean;
};
/** `made`: as they were asked for; absent from a workflow of the version before. */
export type FinishRequest = Pick<TargetRequest, 'run' | 'folder'> & { made?: Pick<TargetRequest, 'format' | 'disks'> };
/** What the operating system allows for the path of a Unix socket. */
const SOCKET_PATH_BYTES = 107;
/** What was restored is durable when it is finished: a sync has little to do. */
const SILENCE_MS = 5 * 60_000;

export type FinishedTarget = { diskKey: DiskKey; file: string };

/**
 * Makes the targets, or takes up those this run made before (a daemon that died is started again).
 * TARGET_NOT_ALLOWED: the folder is outside the allowed ones. TARGET_EXISTS: a file of that name, or its .partial of
 * another run, is there. BAD_REQUEST: a name that cannot be one. STORAGE_ERROR: the system refused, or the allowed folder, or
 * what was `begun`, is not there.
 */
export async function createTargets(request: TargetRequest): Promise<TargetAccess[]> {
  checkNames(request.disks);
  const { run, begun = false } = request;
  const folder = await allowedFolder(request);
  const known = await readState(folder, run);
  if (begun && !known?.claimed) throw goneError(`what restore ${run} began in folder ${folder}`, folder);
  const state = await withSocketFolder(folder, known?.claimed ? known : await claim(folder, request));
  const targets: TargetAccess[] = [];
  for (const index of state.disks.keys()) targets.push(await makeTarget(folder, state, index, begun));
  // From here on what is not there was lost, also after a loss of power.
  if (!begun) await guarded(folder, () => syncPath(folder));
  return targets;
}

/** The names are this run's from here on. */
async function claim(folder: string, { run, format, disks }: TargetRequest): Promise<TargetState> {
  for (const { name } of disks)
    for (const file of [path.join(folder, name), partialOf(folder, name)])
      if (await entryOf(file)) throw alreadyThere(file);
  const wish = { run, format, disks: [...disks], claimed: false, socketFolder: null };
  await writeState(folder, wish);
  try {
    await refuseOtherRuns(folder, wish);
  } catch (error) {
    await removeState(folder, wish);
    throw error;
  }
  const state = { ...wish, claimed: true };
  await writeState(folder, state);
  return state;
}

/** How their paths begin: by it they are found when the state that names one went away with the restore's folder. */
const socketFoldersOf = (run: RunKey): string => path.join(os.tmpdir(), `td-restore-${run}-`);

/** The sockets' folder may be swept away (a restart of the machine, a cleaner): then no daemon can be reached by it. */
async function withSocketFolder(folder: string, state: TargetState): Promise<TargetState> {
  const { socketFolder } = state;
  if (state.format === 'raw' || (socketFolder !== null && (await entryOf(socketFolder)))) return state;
  if (socketFolder !== null) for (const index of state.disks.keys()) await endDaemon(socketOf(socketFolder, index));
  const made = await guarded(os.tmpdir(), () => mkdtemp(socketFoldersOf(state.run)));
  if (Buffer.byteLength(socketOf(made, state.disks.length)) > SOCKET_PATH_BYTES)
    throw new TidemarkError('BAD_CONFIG', `the path of folder ${made} is too long for the sockets in it`, {
      folder: made,
    });
  const next = { ...state, socketFolder: made };
  await writeState(folder, next);
  return next;
}

async function makeTarget(folder: string, state: TargetState, index: number, begun: boolean): Promise<TargetAccess> {
  const { run, format } = state;
  const { diskKey, sizeBytes, name } = state.disks[index]!;
  const file = partialOf(folder, name);
  const cursorFile = cursorOf(folder, run, index);
  const isThere = (await entryOf(file)) !== null;
  if (begun && !isThere) throw goneError(`restore target ${file}`, file);
  // A cursor speaks of the file it was written beside: a new one is restored from its beginning.
  if (!isThere) await guarded(cursorFile, () => rm(cursorFile, { force: true }));
  const common = { run, diskKey, sizeBytes, cursorFile };
  if (format === 'raw') {
    await guarded(file, () => makeRaw(file, sizeBytes, !isThere));
    return { ...common, data: { via: 'file', path: file } };
  }
  if (!isThere) await guarded(file, () => createImage(file, makingOf(folder, run, index), sizeBytes));
  const unix = socketOf(state.socketFolder!, index);
  await ensureDaemon(file, unix);
  return { ...common, data: { via: 'nbd', at: { unix }, export: EXPORT_NAME } };
}

async function makeRaw(file: string, sizeBytes: number, create: boolean): Promise<void> {
  const handle = await openTarget(file, create);
  try {
    await handle.truncate(sizeBytes);
  } finally {
    await handle.close();
  }
}

/**
 * Syncs, renames and cleans up after the run. Done before: the same answer, from the files that are there, or an empty one when
 * `made` is absent. No file has its name before all are seen to be there. TARGET_EXISTS: meanwhile something took a name.
 * UNREACHABLE: the storage has not answered for `silenceMs`. STORAGE_ERROR: also when a file is gone.
 */
export async function finishTargets(request: FinishRequest, silenceMs = SILENCE_MS): Promise<FinishedTarget[]> {
  if (!(await entryOf(request.folder))) throw goneError(`restore folder ${request.folder}`, request.folder);
  const folder = await guarded(request.folder, () => realpath(request.folder));
  const state = await readState(folder, request.run);
  if (!state?.claimed) return await answered(folder, silenceMs, () => finishedBefore(folder, request.made));
  await answered(folder, silenceMs, () => expectAll(folder, state));
  const finished: FinishedTarget[] = [];
  for (const [index, { diskKey, name }] of state.disks.entries()) {
    const [from, to] = [partialOf(folder, name), path.join(folder, name)];
    await endDaemonOf(state, index);
    await answered(from, silenceMs, () => moveExclusively(from, to));
    finished.push({ diskKey, file: to });
  }
  await answered(folder, silenceMs, () =>
    guarded(folder, async () => {
      await syncPath(folder);
      await removeState(folder, state);
    }),
  );
  return finished;
}

async function finishedBefore(folder: string, made: FinishRequest['made']): Promise<FinishedTarget[]> {
  const finished: FinishedTarget[] = [];
  for (const disk of made?.disks ?? [])
    finished.push({ diskKey: disk.diskKey, file: await finishedFile(folder, made!.format, disk) });
  return finished;
}

/** STORAGE_ERROR: neither a file to be named is there, nor one that was named before. */
async function expectAll(folder: string, { format, disks }: TargetState): Promise<void> {
  for (const disk of disks)
    if (!(await entryOf(partialOf(folder, disk.name)))) await finishedFile(folder, format, disk);
}

/** Removes what the run made and did not finish; nothing of anybody else's. */
export async function discardTargets(request: { run: RunKey; folder: string }): Promise<void> {
  const folder = await realpath(request.folder).catch(() => null);
  const state = folder ? await readState(folder, request.run) : null;
  if (!folder || !state) return await endOrphans(request.run);
  for (const [index, { name }] of state.disks.entries()) {
    await endDaemonOf(state, index);
    if (state.claimed) await guarded(folder, () => rm(partialOf(folder, name), { force: true }));
  }
  await guarded(folder, () => removeState(folder, state));
}

async function endOrphans(run: RunKey): Promise<void> {
  const prefix = socketFoldersOf(run);
  await endDaemonsBelow(prefix);
  for (const name of await readdir(os.tmpdir())) {
    const each = path.join(os.tmpdir(), name);
    if (each.startsWith(prefix)) await rm(each, { recursive: true, force: true });
  }
}

async function endDaemonOf({ socketFolder }: TargetState, index: number): Promise<void> {
  if (socketFolder !== null) await endDaemon(socketOf(socketFolder, index));
}

const isWithin = (folder: string, root: string): boolean =>
  folder === root || folder.startsWith(path.join(root, path.sep));

/** Real path of a folder that lies in an allowed one; made when need be, once what is there of it is seen to be allowed. */
async function allowedFolder({ folder, allowedFolders: allowed, begun = false }: TargetRequest): Promise<string> {
  const roots = await Promise.all(allowed.map((root) => realpath(root).catch(() => null)));
  const away = allowed.find((root, at) => roots[at] === null && isWithin(path.normalize(folder), path.normalize(root)));
  const names = allowed.join(', ') || 'none';
  const refused =
    away === undefined
      ? new TidemarkError('TARGET_NOT_ALLOWED', `restore folder ${folder} is not in an allowed folder (${names})`, {
          folder,
        })
      : goneError(`allowed folder ${away}`, away);
  const check = (real: string): void => {
    if (!roots.some((root) => root !== null && isWithin(real, root))) throw refused;
  };
  if (!path.isAbsolute(folder)) throw refused;
  const wanted = path.normalize(folder);
  check(await realpath(await nearestThere(wanted)).catch(() => Promise.reject(refused)));
  return await guarded(wanted, async () => {
    if (!begun) await mkdir(wanted, { recursive: true });
    else if (!(await entryOf(wanted))) throw goneError(`restore folder ${wanted}`, wanted);
    const real = await realpath(wanted);
    check(real);
    return real;
  });
}

/** A link to nowhere is there, and has no real path. */
async function nearestThere(folder: string): Promise<string> {
  const parent = path.dirname(folder);
  return parent === folder || (await entryOf(folder)) ? folder : nearestThere(parent);
}
