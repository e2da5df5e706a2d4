/**
 * What happens to restore points after they are sealed, on the whole product: the catalog is lost and made again from the
 * repository alone, restore points go by the job's retention, a block rots, is found, and is healed by the next session.
 */
import { execFileSync } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { sql } from 'kysely';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { actOnSimulated, readSimulated } from '../../engines/hypervisors/simulated/model.ts';
import { connectCatalog } from '../../schema/catalog/connection.ts';
import { migrateCatalog } from '../../schema/catalog/migrate.ts';
import { listRestorePoints } from '../../schema/catalog/restore-points.ts';
import { applySite } from '../../schema/catalog/site.ts';
import { diskKey } from '../../schema/domain/ids.ts';
import { digestOf } from '../../schema/repository/digest.ts';
import { MIB, simulatedDisk, simulatedHost, simulatedJob as job, simulatedVm } from '../fixtures/machine.ts';
import { sessionsOf } from '../fixtures/whole-sessions.ts';
import { connectionOf, startWholeStack, type WholeStack } from '../fixtures/whole-stack.ts';

const rules = { days: null, weekly: null, monthly: null, yearly: null, deletedVmDays: null, timeZone: 'UTC' };

let whole: WholeStack;
beforeAll(async () => {
  whole = await startWholeStack();
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', whole.machine.imageFile, '1M']);
  await whole.apply([job]);
});
afterAll(() => whole?.close());
const { backUp, restore, maintain } = sessionsOf(() => whole);

const folder = (): string => whole.machine.layout.hostFolder(simulatedHost);
let seed = 0;
const write = (at: number): Promise<unknown> =>
  actOnSimulated(folder(), simulatedVm.vmId, {
    kind: 'write',
    diskKey: diskKey('d0'),
    offset: at,
    length: 8192,
    seed: (seed += 1),
  });
const bytesNow = async (): Promise<Buffer> =>
  Buffer.from(await readSimulated(folder(), simulatedDisk, simulatedVm.vmId));

/** Restore points with the disk as it was, the oldest first. */
const taken: { id: string; disk: Buffer }[] = [];
async function take(mode: 'full' | 'cbt'): Promise<void> {
  const session = await backUp(job);
  expect(session).toMatchObject({ result: 'Success', vms: [{ disks: [{ mode }] }] });
  taken.push({ id: session.vms[0]!.restorePointId!, disk: await bytesNow() });
}
async function expectAllRestored(name: string): Promise<void> {
  for (const [at, { id, disk }] of taken.entries())
    expect((await restore(id, `${name}-${at}`, 'raw')).equals(disk), `restore point ${at}`).toBe(true);
}

test('a lost catalog comes back from the repository alone, and the next session is an increment', async () => {
  await take('full');
  await write(3 * MIB);
  await take('cbt');
  const { database } = whole.stack.connections;
  await sql`drop database ${sql.id(database.name)}`.execute(whole.db);
  const connection = await connectionOf(database);
  await migrateCatalog(connection);
  // Connections that are open have no database any more.
  await whole.db.destroy();
  whole.db = connectCatalog(connection, 2);
  await applySite(whole.db, { site: whole.machine.config.site, machines: [whole.machine.config], jobs: [job] });
  const { pid } = whole.child('control');
  process.kill(pid!, 'SIGKILL');
  await whole.until('control is there again', () => {
    const control = whole.child('control');
    return control.state === 'ready' && control.pid !== pid;
  });
  expect(await listRestorePoints(whole.db)).toEqual([]);

  const { session, outcomes } = await maintain(['import']);
  expect(session).toMatchObject({ result: 'Success' });
  expect(outcomes).toMatchObject([{ step: 'import', counts: { restorePoints: 2, added: 2, sessionsAdded: 2 } }]);
  await write(5 * MIB);
  await take('cbt');
  const ids = (await listRestorePoints(whole.db)).map(({ restorePointId }) => restorePointId);
  expect(ids.toSorted()).toEqual(taken.map(({ id }) => id).toSorted());
  await expectAllRestored('imported');
});

test('what no rule keeps goes, after a dry run that said so; the others come back byte for byte', async () => {
  const retention = { ...rules, count: 2, minimum: 1 };
  const jobs = [{ ...job, retention }];
  await applySite(whole.db, { site: whole.machine.config.site, machines: [whole.machine.config], jobs });
  const dry = await maintain(['retention'], { dryRun: true });
  expect(dry.outcomes).toMatchObject([{ dryRun: true, lineages: [{ stays: 2 }] }]);
  expect(await listRestorePoints(whole.db)).toHaveLength(3);
  const { session, outcomes } = await maintain(['retention', 'collection', 'check', 'statistics']);
  expect(session).toMatchObject({ result: 'Success' });
  const report = outcomes.find((one) => one.step === 'check')!.report;
  expect(report).toMatchObject({ whole: true, restorePoints: 2, damages: [], openPacks: 0 });
  taken.shift();
  expect(await listRestorePoints(whole.db)).toHaveLength(2);
  await expectAllRestored('pruned');
});

/** Of a block that every restore point has, and the disk still: the next session can heal it. */
async function rotSharedBlock(): Promise<void> {
  const blocks = taken.map(
    ({ disk }) =>
      (at: number) =>
        disk.subarray(at, at + MIB),
  );
  const [first, ...others] = blocks as [(at: number) => Buffer, ...((at: number) => Buffer)[]];
  const isShared = (at: number): boolean =>
    !first(at).equals(Buffer.alloc(MIB)) && others.every((block) => block(at).equals(first(at)));
  const at = Array.from({ length: taken[0]!.disk.length / MIB }, (_, i) => i * MIB).find(isShared)!;
  const packs = path.join(whole.machine.folders.repository, 'packs');
  const files = (await readdir(packs, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  for (const { parentPath, name } of files) {
    const file = path.join(parentPath, name);
    const bytes = await readFile(file);
    // In the header of its record, which is shorter than this.
    const id = bytes.indexOf(digestOf(first(at)));
    if (id < 0) continue;
    bytes[id + 256]! ^= 1;
    return writeFile(file, bytes);
  }
  throw new Error('no pack has the block');
}

test('a block that rotted is named with the restore points it hits, and healed by the next session', async () => {
  // All are kept: which of them are hit depends on how blocks lie in packs.
  await applySite(whole.db, { site: whole.machine.config.site, machines: [whole.machine.config], jobs: [job] });
  await rotSharedBlock();
  const found = await maintain(['check']);
  expect(found.session).toMatchObject({ result: 'Failed', error: { code: 'DAMAGE_FOUND' } });
  const hit = found.outcomes.find((one) => one.step === 'check')!.report.marked;
  expect(hit.length).toBeGreaterThan(0);
  const marked = (await listRestorePoints(whole.db)).filter(({ damaged }) => damaged);
  expect(marked.map(({ restorePointId }) => restorePointId).toSorted()).toEqual(hit.toSorted());

  const session = await backUp(job);
  expect(session).toMatchObject({ vms: [{ disks: [{ mode: 'cbt' }] }] });
  const healed = await maintain(['check']);
  expect(healed.session).toMatchObject({ result: 'Success' });
  expect(healed.outcomes.find((one) => one.step === 'check')!.report.healed.toSorted()).toEqual(hit.toSorted());
  await expectAllRestored('healed');
});
