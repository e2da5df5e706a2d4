import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listRestorePoints } from '../../schema/catalog/restore-points.ts';
import { listSessions, loadSession } from '../../schema/catalog/sessions.ts';
import {
  diskKey,
  lineageId,
  proxyId,
  repositoryId,
  restorePointId,
  runKeyOf,
  sessionId,
} from '../../schema/domain/ids.ts';
import type { SealOutcome } from '../../schema/domain/restore-point.ts';
import type { RestoreSessionInput } from '../../schema/domain/sessions.ts';
import { job, startTestCatalog, type TestCatalog, Workflows } from '../../tests/fixtures/control.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { createRestoreSessionActivities } from './restore-session-activities.ts';
import { createSessionActivities } from './session-activities.ts';

const startedAt = '2026-11-25T00:00:00.000Z';
const { clock } = testSeams();
let catalog: TestCatalog;
let db: CatalogDatabase;
let activities: ReturnType<typeof createSessionActivities>;
beforeAll(async () => {
  catalog = await startTestCatalog();
  ({ db } = catalog);
});
afterAll(() => catalog?.close());

const sealed: SealOutcome = {
  restorePointId: restorePointId('f'.repeat(32)),
  manifestDigest: 'ab',
  manifest: {
    format: 1,
    repository: repositoryId('main'),
    restorePointId: restorePointId('f'.repeat(32)),
    run: runKeyOf('s1/a'),
    lineage: lineageId('0'.repeat(16)),
    vm: { vmId: 'a', hostId: 'h1', name: 'web/01' },
    jobId: job.jobId,
    sessionId: sessionId('s1'),
    nominalTime: startedAt,
    takenAt: startedAt,
    sealedAt: startedAt,
    writer: 'tidemark',
    baseRestorePointId: null,
    consistency: { asked: 'none', reached: 'crash', frozenMs: null },
    warnings: [],
    leftOut: [],
    referencePoint: null,
    disks: ['d0', 'd/1'].map((key) => ({
      diskKey: diskKey(key),
      identity: key,
      sizeBytes: 4096,
      blockSize: 1024 * 1024,
      root: '00',
      height: 0,
      filterDigest: null,
      baseRoot: null,
      mode: 'full',
      reason: { code: 'first', message: 'first' },
      audit: { sampled: 0, mismatched: 0 },
      conservation: {
        sizeBytes: 4096,
        unallocatedBytes: 0,
        zeroBytes: 0,
        filteredBytes: 0,
        unchangedBytes: 0,
        deduplicatedBytes: 0,
        storedBytes: 4096,
      },
      readBytes: 4096,
      sentBytes: 4096,
    })),
    configurationRoot: null,
    ledgerDigest: '00',
    suspect: false,
  },
};

const restoreInput = (change: Partial<RestoreSessionInput> = {}): RestoreSessionInput => ({
  version: 1,
  sessionId: sessionId('r1'),
  restorePointId: sealed.restorePointId,
  disks: null,
  format: 'raw',
  folder: '/restores/web',
  name: null,
  proxyId: null,
  ...change,
});
const restore = (change: Partial<RestoreSessionInput> = {}) =>
  createRestoreSessionActivities({ db, clock }).startRestore({
    input: restoreInput(change),
    workflowId: 'restore-session/r1',
    startedAt,
  });
beforeEach(async () => {
  await catalog.reset();
  activities = createSessionActivities({ db, workflows: new Workflows(), clock });
  await activities.recordRestorePoint(sealed);
  await activities.recordRestorePoint(sealed);
  expect(await listRestorePoints(db)).toHaveLength(1);
});

it('names repository, proxies and files, and keeps rows to the end', async () => {
  const started = {
    vmId: 'a',
    vmName: 'web/01',
    repositoryId: 'main',
    proxies: ['p1'],
    disks: [
      { diskKey: 'd0', sizeBytes: 4096, fileName: 'web-01-d0.raw' },
      { diskKey: 'd/1', sizeBytes: 4096, fileName: 'web-01-d-1.raw' },
    ],
  };
  expect(await restore()).toEqual(started);
  expect(await restore()).toEqual(started);
  const { recordRestore } = createRestoreSessionActivities({ db, clock });
  const stages = { source: 1, proxy: 2, throttling: 3, network: 4, target: 5 };
  const figures = { sizeBytes: 4096, receivedBytes: 500, writtenBytes: 4096, stages };
  await recordRestore({
    sessionId: sessionId('r1'),
    disks: [{ diskKey: diskKey('d0'), file: '/restores/web/web-01-d0.raw', ...figures }],
    findings: [{ level: 'info', code: 'x', message: 'y' }],
  });
  await activities.updateSession({
    sessionId: sessionId('r1'),
    state: 'Stopped',
    result: 'Success',
    endedAt: startedAt,
  });
  expect(await loadSession(db, 'r1')).toMatchObject({
    kind: 'restore',
    state: 'Stopped',
    vms: [
      {
        vmId: 'a',
        result: 'Success',
        step: 'done',
        restorePointId: sealed.restorePointId,
        disks: [
          { diskKey: 'd/1', doneBytes: 0 },
          { diskKey: 'd0', doneBytes: 4096, readBytes: 500, sentBytes: 4096, stages },
        ],
      },
    ],
  });
});

it('takes one disk, under a name', async () => {
  const started = await restore({ disks: [diskKey('d/1'), diskKey('d/1')], name: 'copy', format: 'qcow2' });
  expect(started.disks).toEqual([{ diskKey: 'd/1', sizeBytes: 4096, fileName: 'copy-d-1.qcow2' }]);
});

it.each<[Partial<RestoreSessionInput>, string, string]>([
  [{ restorePointId: restorePointId('e'.repeat(32)) }, 'RESTORE_POINT_NOT_FOUND', 'knows no restore point eee'],
  [{ disks: [diskKey('d9')] }, 'NOT_FOUND', 'has no disk d9; it has d0, d/1'],
  [{ proxyId: proxyId('p9') }, 'NOT_FOUND', 'there is no proxy p9'],
  [{ folder: '/etc' }, 'TARGET_NOT_ALLOWED', 'no proxy allows restores into /etc (allowed: /restores)'],
  [{ folder: '/restores/../etc' }, 'TARGET_NOT_ALLOWED', 'no proxy allows'],
  [{ folder: '/restoresX' }, 'TARGET_NOT_ALLOWED', 'no proxy allows'],
  [{ folder: '/etc', proxyId: proxyId('p1') }, 'TARGET_NOT_ALLOWED', 'proxy p1 does not allow restores into /etc'],
  [{ folder: 'web' }, 'BAD_REQUEST', 'not an absolute path'],
  [{ name: '../x' }, 'BAD_REQUEST', 'not a file name'],
  [{ name: '.x' }, 'BAD_REQUEST', 'not a file name'],
  [{ name: '' }, 'BAD_REQUEST', 'not a file name'],
])('refuses %j', async (change, type, message) => {
  await expect(restore(change)).rejects.toMatchObject({ type, message: expect.stringContaining(message) });
  expect(await listSessions(db, { kind: 'restore' })).toEqual([]);
});
