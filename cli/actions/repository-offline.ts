/** `tidemark repository check|repair|stats --offline`: by this process itself, where no stack runs. */
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { LongWork } from '../../engines/repository/maintenance/long-work.ts';
import type { Repository } from '../../engines/repository/repository.ts';
import { openRepository } from '../../engines/repository/open-repository.ts';
import { readRepositoryFile } from '../../engines/repository/storage/repository-file.ts';
import { openStorage, type StorageDescription } from '../../engines/repository/storage/storage.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { restorePointId } from '../../schema/domain/ids.ts';
import type { CheckRequest, MaintenanceProgress } from '../../schema/domain/maintenance.ts';
import { packThreadsOf } from '../../workers/runtime/pack-threads.ts';
import { repositorySpace } from '../../workers/runtime/repository-space.ts';
import { readSecret } from '../../workers/runtime/repository-secret.ts';
import { commandSeams as seams } from '../command-seams.ts';
import { exitCodes } from '../exit-codes.ts';
import { renderCheck, renderRepair } from '../output/maintenance-report.ts';
import { createLineReporter, createPainter, type LiveSession, renderSession } from '../output/progress.ts';
import { renderStatistics } from '../output/statistics-report.ts';
import { printJson } from '../run-command.ts';
import { secretPlace } from '../secret-options.ts';
import {
  type CheckOptions,
  checkDepth,
  type DryRunOptions,
  type OfflineOptions,
  type StatsOptions,
} from './maintenance-options.ts';

type Offline = OfflineOptions & { json?: boolean };
/** As a repository has that site.yaml says nothing else of. */
const PACK_THREADS = 2;

/** REPOSITORY_NOT_ONE (none is made), REPOSITORY_IN_USE, KEY_MISSING, WRONG_KEY and what else opening it says. */
async function withRepository<T>(options: Offline, work: (repository: Repository) => Promise<T>): Promise<T> {
  const folder = path.resolve(options.offline!);
  const description: StorageDescription = { kind: 'folder', folder };
  const storage = openStorage(description);
  const isFile = await stat(folder).then(
    (entry) => entry.isFile(),
    () => false,
  );
  const found = isFile ? null : await readRepositoryFile(storage.staging);
  if (!found)
    throw new TidemarkError('REPOSITORY_NOT_ONE', `${folder} is not a repository: it has no repository.json`, {
      folder,
    });
  const place = secretPlace(options);
  const secret = place && (await readSecret(place, { environment: process.env, log: seams.log }));
  // A cache, made anew: that of the stack is not known here.
  const indexFolder = await mkdtemp(path.join(tmpdir(), 'tidemark-index-'));
  try {
    const repositoryId = found.file.repository;
    const packWorker = packThreadsOf(description, PACK_THREADS);
    const repository = await openRepository({ storage, repositoryId, secret, indexFolder, seams, packWorker });
    try {
      return await work(repository);
    } finally {
      await repository.close();
    }
  } finally {
    await rm(indexFolder, { recursive: true, force: true });
  }
}

/** Shows how far it is; the first Ctrl-C ends it in order. */
async function shown<T>(step: string, json: boolean, work: (long: LongWork) => Promise<T>): Promise<T> {
  const stopping = new AbortController();
  const stop = (): void => stopping.abort(new TidemarkError('STOPPED', `the ${step} was interrupted`));
  process.once('SIGINT', stop);
  const show = json ? () => undefined : createScreen(step);
  try {
    return await work({ signal: stopping.signal, onProgress: show });
  } finally {
    process.removeListener('SIGINT', stop);
  }
}

function createScreen(step: string): (progress: MaintenanceProgress) => void {
  const liveOf = ({ step: now, doneBytes, totalBytes }: MaintenanceProgress): LiveSession => {
    const figures = { readBytes: 0, sentBytes: 0, readRateBytesPerSecond: 0, waitsFor: '' };
    const disk = { diskKey: now, bytesDone: doneBytes, bytesTotal: totalBytes, ...figures };
    const line = { name: step, step: 'working', result: 'None', note: '', disks: totalBytes > 0 ? [disk] : [] };
    return {
      kind: 'maintenance',
      sessionId: step,
      state: 'Working',
      result: 'None',
      note: '',
      vms: [line],
      notices: [],
    };
  };
  const { stderr } = process;
  if (stderr.isTTY) {
    const painter = createPainter(stderr);
    return (progress) =>
      painter.paint(renderSession(liveOf(progress), stderr.columns || 80, stderr.rows || 24).slice(1));
  }
  const report = createLineReporter();
  return (progress) =>
    report(liveOf(progress))
      .slice(1)
      .forEach((line) => console.error(line));
}

export function checkOffline(options: CheckOptions): Promise<number> {
  const { restorePoint, vm, maxBytes = null, maxTime: maxMs = null } = options;
  const json = options.json === true;
  if (restorePoint !== undefined && !/^[0-9a-f]{32}$/.test(restorePoint))
    throw new TidemarkError('BAD_REQUEST', 'offline a restore point is named by its whole id', { restorePoint });
  return withRepository(options, async (repository) => {
    const request: CheckRequest = {
      depth: checkDepth(options),
      vmId: vm === undefined ? null : vmIn(repository, vm),
      restorePointId: restorePoint === undefined ? null : restorePointId(restorePoint),
      maxBytes,
      maxMs,
    };
    const report = await shown('check', json, (long) => repository.check(request, long));
    if (json) printJson({ repository: repository.repositoryId, report });
    else console.log(renderCheck(report, report.damages.length));
    return report.damages.length === 0 ? exitCodes.ok : exitCodes.failed;
  });
}

function vmIn(repository: Repository, name: string): string {
  const found = repository.listSealed().find(({ manifest: { vm } }) => vm.vmId === name || vm.name === name);
  if (found) return found.manifest.vm.vmId;
  throw new TidemarkError('VM_NOT_FOUND', `VM ${name} has no restore point in this repository`, { vm: name });
}

export function repairOffline(options: DryRunOptions): Promise<number> {
  const json = options.json === true;
  const dryRun = options.dryRun === true;
  return withRepository(options, async (repository) => {
    const report = await shown('repair', json, (long) => repository.repair({ ...long, dryRun }));
    if (json) printJson({ repository: repository.repositoryId, dryRun, report });
    else console.log(renderRepair(report, dryRun));
    return report.damaged.length === 0 ? exitCodes.ok : exitCodes.failed;
  });
}

export function statsOffline(options: StatsOptions): Promise<number> {
  return withRepository(options, async (repository) => {
    const statistics = await repository.statistics();
    const space = await repositorySpace({ kind: 'folder', folder: path.resolve(options.offline!) }, seams.clock);
    const { repositoryId } = repository;
    if (options.json) printJson({ repository: repositoryId, statistics, space });
    else console.log(`repository ${repositoryId}\n${renderStatistics(statistics, space)}`);
    return exitCodes.ok;
  });
}
