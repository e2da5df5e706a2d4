import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { recordRestorePoint } from '../schema/catalog/restore-points.ts';
import type { Manifest } from '../schema/domain/restore-point.ts';
import { startTestCatalog, type TestCatalog } from '../tests/fixtures/control.ts';
import { findRestorePoint } from './find-names.ts';

let catalog: TestCatalog;
beforeAll(async () => {
  catalog = await startTestCatalog();
});
afterAll(() => catalog?.close());
beforeEach(() => catalog.reset());

const at = (date: string): string => `${date}T20:00:00.000Z`;
type Point = { due: string; taken?: string; sealed?: string; repository?: string };

/** Of one VM, with their places in the list as ids. */
async function record(points: readonly Point[]): Promise<void> {
  for (const [number, { due, taken = due, sealed = due, repository = 'main' }] of points.entries()) {
    const restorePointId = String(number).padStart(32, '0');
    const manifest = {
      repository,
      restorePointId,
      run: `run${number}`,
      lineage: `lineage in ${repository}`,
      vm: { vmId: 'v1', hostId: 'h1', name: 'web' },
      jobId: 'nightly',
      sessionId: 's1',
      nominalTime: at(due),
      takenAt: at(taken),
      sealedAt: at(sealed),
      consistency: { reached: 'crash' },
      suspect: false,
      disks: [],
    } as unknown as Manifest;
    await recordRestorePoint(catalog.db, { restorePointId: manifest.restorePointId, manifestDigest: '', manifest });
  }
}
const latest = async (): Promise<number> => Number((await findRestorePoint(catalog.db, 'web@latest')).restorePointId);

test('@latest is the good one that was sealed last, whatever the clock of its host showed', async () => {
  await record([{ due: '2026-11-23' }, { due: '2026-11-24' }, { due: '2026-11-25', taken: '2026-09-26' }]);
  expect(await latest()).toBe(2);
  await catalog.db.updateTable('restore_points').set({ suspect: 1 }).where('run_key', '=', 'run2').execute();
  expect(await latest()).toBe(1);
});

test('@latest of several repositories is the one taken last, also when the clock of one was ahead', async () => {
  await record([{ due: '2026-11-23', repository: 'ahead', sealed: '2031-01-01' }, { due: '2026-11-24' }]);
  expect(await latest()).toBe(1);
  await record([
    { due: '2026-11-25', taken: '2026-09-26', repository: 'ahead', sealed: '2031-01-02' },
    { due: '2026-11-24' },
  ]);
  expect(await latest()).toBe(0);
});
