/**
 * The workflow code as one piece, kept between starts: bundling takes seconds on a busy machine, and a control worker
 * that was killed should be back before anybody misses it. Its name is the digest of all that goes into it, which the
 * layer rules keep to `workflows`, `schema/domain` and Temporal's packages.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleWorkflowCode } from '@temporalio/worker';
import { messageOf } from '../../schema/domain/errors.ts';
import type { Log } from '../../schema/domain/seams.ts';
import { temporalLogger } from './temporal.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** Names the versions of all packages. */
const lockFile = 'package-lock.json';

/** Paths below the root. `sourceFolders`: all that goes into it, but packages. */
export type WorkflowCode = {
  entry: string;
  interceptors: readonly string[];
  sourceFolders: readonly string[];
  /** How failures are told, where it is not Temporal's own way. */
  failureConverter?: string;
};

export const workflowCode: WorkflowCode = {
  entry: 'workflows/index.ts',
  interceptors: [],
  sourceFolders: ['workflows', 'schema/domain'],
};

/** `folder`: where it is kept; one that cannot be written costs time at each start, nothing else. */
export async function loadWorkflowBundle(folder: string, log: Log, of: WorkflowCode = workflowCode): Promise<string> {
  const name = `${await digestOfSources(of)}.js`;
  const kept = await readFile(path.join(folder, name), 'utf8').catch(() => null);
  if (kept !== null) return kept;
  const { code } = await bundleWorkflowCode({
    workflowsPath: path.join(root, of.entry),
    ...(of.failureConverter === undefined ? {} : { failureConverterPath: path.join(root, of.failureConverter) }),
    workflowInterceptorModules: of.interceptors.map((name) => path.join(root, name)),
    logger: temporalLogger(log),
  });
  await keep(folder, name, code).catch((error: unknown) =>
    log.warn('the workflow bundle cannot be kept', { folder, error: messageOf(error) }),
  );
  return code;
}

async function digestOfSources({ sourceFolders, failureConverter = '' }: WorkflowCode): Promise<string> {
  const hash = createHash('sha256').update(failureConverter);
  const files = await Promise.all(sourceFolders.map(sourcesIn));
  for (const file of [...files.flat(), lockFile]) {
    const text = await readFile(path.join(root, file), 'utf8').catch(() => '');
    hash.update(`${file} ${text.length}\n${text}`);
  }
  return hash.digest('hex').slice(0, 32);
}

async function sourcesIn(folder: string): Promise<string[]> {
  const names = await readdir(path.join(root, folder), { recursive: true });
  const sources = names.filter((name) => /\.[jt]s$/.test(name) && !/\.test\.[jt]s$/.test(name));
  return sources.toSorted().map((name) => `${folder}/${name}`);
}

async function keep(folder: string, name: string, code: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const own = path.join(folder, `${name}.${process.pid}`);
  await writeFile(own, code);
  await rename(own, path.join(folder, name));
  for (const other of await readdir(folder)) if (other !== name) await rm(path.join(folder, other), { force: true });
}
