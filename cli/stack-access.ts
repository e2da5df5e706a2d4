/** Where the stack's state lies and how commands find what runs: the one place that knows the default. */
import { homedir } from 'node:os';
import path from 'node:path';
import { stackLayout, type StackLayout } from '../engines/stack/layout.ts';
import { isSupervisorRunning, readStackFile, type StackFile } from '../engines/stack/stack-file.ts';
import type { StackTools } from '../engines/stack/tools.ts';
import { type WorkerName, workerNames } from '../engines/stack/worker-child.ts';
import { TidemarkError } from '../schema/domain/errors.ts';
import { locateMariadbShare, locateTool, rootFolder } from '../setup/locate.mjs';

export const STATE_OPTION = ['--state <folder>', 'state folder (default: $TIDEMARK_STATE, else ~/.tidemark)'] as const;

export const stateFolderOf = (option: string | undefined): string =>
  path.resolve(option ?? process.env['TIDEMARK_STATE'] ?? path.join(homedir(), '.tidemark'));

export const layoutOf = (option: string | undefined): StackLayout => stackLayout(stateFolderOf(option));

/** STACK_NOT_RUNNING when nothing was started in the folder, or its supervisor is gone. */
export function runningStack(layout: StackLayout): StackFile {
  const stack = readStackFile(layout.stackFile);
  if (stack !== null && isSupervisorRunning(stack)) return stack;
  throw new TidemarkError('STACK_NOT_RUNNING', `no stack runs in ${layout.folder}`, { folder: layout.folder });
}

/** MISSING_TOOL names all that is missing at once. */
export function locateTools(): StackTools {
  const temporal = locateTool('temporal');
  const mariadbd = locateTool('mariadbd');
  const mariadbShare = locateMariadbShare();
  if (temporal !== null && mariadbd !== null && mariadbShare !== null) {
    return { temporal, mariadbd, mariadbShare, node: process.execPath };
  }
  const missing = Object.entries({ temporal, mariadbd, "MariaDB's SQL files": mariadbShare })
    .filter(([, found]) => found === null)
    .map(([name]) => name);
  throw new TidemarkError('MISSING_TOOL', `not installed: ${missing.join(', ')}`, { missing });
}

export function workerEntries(): Record<WorkerName, string> {
  const entries = workerNames.map((name) => [name, path.join(rootFolder, 'workers', `${name}.ts`)]);
  return Object.fromEntries(entries) as Record<WorkerName, string>;
}
