/**
 * Files a restore writes: made as NAME.partial, renamed only when whole. Every verb may be repeated with the same run
 * key; a small state file in the folder, named by it, says what the run made.
 */
import { mkdir, open, readFile, realpath, rename, rm, stat, truncate } from 'node:fs/promises';
import path from 'node:path';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { DiskKey, RunKey } from '../../schema/domain/ids.ts';
import type { TargetAccess } from '../../schema/domain/restore-point.ts';
import { createImage, endDaemon, ensureDaemon } from './qcow2-daemon.ts';

export type TargetFormat = 'raw' | 'qcow2';
export type TargetRequest = {
  run: RunKey;
  folder: string;
  /** From the machine's configuration; `folder` must lie in one of them. */
  allowedFolders: readonly string[];
  format: TargetFormat;
  /** `name`: of the file, without folder. */
  disks: readonly { diskKey: DiskKey; sizeBytes: number; name: string }[];
};
export type FinishedTarget = { diskKey: DiskKey; file: string };
type State = { run: RunKey; format: TargetFormat; disks: { diskKey: DiskKey; sizeBytes: number; name: string }[] };

const stateFile = (folder: string, run: RunKey): string => path.join(folder, `.tidemark-restore-${run}.json`);
const partial = (folder: string, name: string): string => path.join(folder, `${name}.partial`);
const socketOf = (folder: string, run: RunKey, index: number): string => path.join(folder, `.td-${run}-${index}.sock`);
const cursorOf = (folder: string, run: RunKey, index: number): string =>
  path.join(folder, `.tidemark-restore-${run}-${index}.cursor`);

/**
 * Makes the targets, or takes up those this run made before (a daemon that died is started again).
 * TARGET_NOT_ALLOWED: the folder is outside the allowed ones. TARGET_EXISTS: a file of that name, or its .partial of another
 * run, is there. STORAGE_ERROR: the system refused.
 */
export async function createTargets(request: TargetRequest): Promise<TargetAccess[]> {
  const folder = await allowedFolder(request.folder, request.allowedFolders);
  const { run, format } = request;
  let state = await readState(folder, run);
  if (!state) {
    for (const { name } of request.disks) await refuseExisting(folder, name);
    state = { run, format, disks: [...request.disks] };
    await writeDurably(stateFile(folder, run), JSON.stringify(state));
  }
  const targets: TargetAccess[] = [];
  for (const [index, disk] of state.disks.entries()) targets.push(await makeTarget(folder, state, index, disk));
  return targets;
}

async function makeTarget(
  folder: string,
  { run, format }: State,
  index: number,
  disk: State['disks'][number],
): Promise<TargetAccess> {
  const file = partial(folder, disk.name);
  const { diskKey, sizeBytes } = disk;
  const common = { run, diskKey, sizeBytes, cursorFile: cursorOf(folder, run, index) };
  if (format === 'raw') {
    await (await open(file, 'a', 0o600)).close();
    await truncate(file, sizeBytes);
    return { ...common, data: { via: 'file', path: file } };
  }
  if (!(await exists(file))) await createImage(file, sizeBytes);
  const unix = socketOf(folder, run, index);
  await ensureDaemon(file, unix);
  return { ...common, data: { via: 'nbd', at: { unix }, export: 'target' } };
}

/** Syncs, renames and cleans up after the run. Done before: the same answer from the files that are there is not promised, an empty list is. */
export async function finishTargets(request: { run: RunKey; folder: string }): Promise<FinishedTarget[]> {
  const folder = await realpath(request.folder);
  const state = await readState(folder, request.run);
  if (!state) return [];
  const finished: FinishedTarget[] = [];
  for (const [index, { diskKey, name }] of state.disks.entries()) {
    const [from, to] = [partial(folder, name), path.join(folder, name)];
    await endDaemon(socketOf(folder, state.run, index));
    if (await exists(from)) {
      if (await exists(to)) throw alreadyThere(to);
      await syncPath(from);
      await rename(from, to);
    }
    finished.push({ diskKey, file: to });
  }
  await syncPath(folder);
  await removeState(folder, state);
  return finished;
}

/** Removes what the run made and did not finish; nothing of anybody else's. */
export async function discardTargets(request: { run: RunKey; folder: string }): Promise<void> {
  const folder = await realpath(request.folder).catch(() => null);
  const state = folder ? await readState(folder, request.run) : null;
  if (!folder || !state) return;
  for (const [index, { name }] of state.disks.entries()) {
    await endDaemon(socketOf(folder, state.run, index));
    await rm(partial(folder, name), { force: true });
  }
  await removeState(folder, state);
}

async function removeState(folder: string, state: State): Promise<void> {
  for (const index of state.disks.keys()) await rm(cursorOf(folder, state.run, index), { force: true });
  await rm(stateFile(folder, state.run), { force: true });
}

/** Real path of a folder that lies in an allowed one; made when its parent is allowed. */
async function allowedFolder(folder: string, allowed: readonly string[]): Promise<string> {
  const roots = await Promise.all(allowed.map((root) => realpath(root).catch(() => null)));
  const within = (real: string): boolean =>
    roots.some((root) => root !== null && (real === root || real.startsWith(root + path.sep)));
  const refused = new TidemarkError(
    'TARGET_NOT_ALLOWED',
    `restore folder ${folder} is not in an allowed folder (${allowed.join(', ') || 'none'})`,
    { folder },
  );
  const parent = await realpath((await exists(folder)) ? folder : path.dirname(folder)).catch(() => null);
  if (!parent || !within(parent)) throw refused;
  await mkdir(folder, { recursive: true });
  const real = await realpath(folder);
  if (!within(real)) throw refused;
  return real;
}

const alreadyThere = (file: string): TidemarkError =>
  new TidemarkError('TARGET_EXISTS', `${file} is there already`, { file });

async function refuseExisting(folder: string, name: string): Promise<void> {
  if (name !== path.basename(name) || name.startsWith('.') || name === '')
    throw new TidemarkError('BAD_REQUEST', `${JSON.stringify(name)} is not a file name`, { name });
  for (const file of [path.join(folder, name), partial(folder, name)]) if (await exists(file)) throw alreadyThere(file);
}

const exists = (file: string): Promise<boolean> =>
  stat(file).then(
    () => true,
    () => false,
  );

async function readState(folder: string, run: RunKey): Promise<State | null> {
  const text = await readFile(stateFile(folder, run), 'utf8').catch(() => null);
  return text === null ? null : (JSON.parse(text) as State);
}

async function writeDurably(file: string, text: string): Promise<void> {
  const handle = await open(`${file}.new`, 'w', 0o600);
  await handle.writeFile(text);
  await handle.sync();
  await handle.close();
  await rename(`${file}.new`, file);
  await syncPath(path.dirname(file));
}

async function syncPath(file: string): Promise<void> {
  const handle = await open(file, 'r');
  await handle.sync();
  await handle.close();
}
