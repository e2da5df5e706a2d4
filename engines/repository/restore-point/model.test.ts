/**
 * Random lives of a repository against a model: disks change, shrink and grow; fulls, CBT increments and comparisons
 * are resumed with new fences, over restarts with and without an index, and aborted; every sealed one comes back.
 */
import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { union, type Extent } from '../../../schema/domain/extents.ts';
import type { TidemarkError } from '../../../schema/domain/errors.ts';
import { type DiskKey, diskKey, type RestorePointId } from '../../../schema/domain/ids.ts';
import type { DiskPlan, SealOutcome } from '../../../schema/domain/restore-point.ts';
import { compressions } from '../../../schema/domain/states.ts';
import { seeded } from '../../../tests/fixtures/mover/disks.ts';
import { handRestore } from '../../../tests/fixtures/repository/hand-restore.ts';
import { KEY_FILE } from '../../../tests/fixtures/repository/keys.ts';
import { strangerKeys } from '../../../tests/fixtures/repository/stranger-keys.ts';
import {
  strangerManifests,
  strangerRecords,
  strangerRestore,
} from '../../../tests/fixtures/repository/stranger-reader.ts';
import {
  createTestRepository,
  MIB,
  planOf,
  type TestRepository,
} from '../../../tests/fixtures/repository/test-repository.ts';
import { verbsOf, type Point } from '../../../tests/fixtures/repository/verbs.ts';

const SESSIONS = 8;
const GRANULE = 64 * 1024;
const hashOf = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

type Next = (below: number) => number;
/** A VM's disk; `changed`: since the last sealed restore point of the lineage, in granules as CBT would tell. */
type ModelDisk = {
  key: DiskKey;
  content: Buffer;
  changed: Extent[];
  base: RestorePointId | null;
  /** It has been smaller since, which tracking says nothing of. */
  wasSmaller: boolean;
};

let world: TestRepository;
afterEach(() => world.close());
const { openPoint, assign, send, seal, abort } = verbsOf(() => world);

const sizeOf = (next: Next): number => [0, 1, 511, MIB, 5 * MIB + 7, 64 * MIB, 65 * MIB - 1, 130 * MIB + 512][next(8)]!;

/** Something that compresses well, now and then something seen before, now and then zeros. */
function scribble(disk: ModelDisk, next: Next): void {
  for (let times = next(6); times > 0 && disk.content.length > 0; times -= 1) {
    const offset = next(disk.content.length);
    const length = Math.min(disk.content.length - offset, 1 + next([10, MIB, 7 * MIB][next(3)]!));
    if (next(3) === 0) disk.content.fill(0, offset, offset + length);
    else disk.content.fill(`${next(40)}-`, offset, offset + length);
    const first = Math.floor(offset / GRANULE) * GRANULE;
    const end = Math.min(disk.content.length, Math.ceil((offset + length) / GRANULE) * GRANULE);
    disk.changed.push({ offset: first, length: end - first });
  }
}

/** Growth reads as zeros; tracking says nothing of it, nor of a size. */
function resize(disk: ModelDisk, sizeBytes: number): void {
  disk.wasSmaller ||= sizeBytes < disk.content.length;
  const resized = Buffer.alloc(sizeBytes);
  disk.content.copy(resized);
  disk.content = resized;
  disk.changed = disk.changed
    .map(({ offset, length }) => ({ offset, length: Math.min(length, sizeBytes - offset) }))
    .filter(({ length }) => length > 0);
}

function planFor(disk: ModelDisk, sealed: readonly SealOutcome[], blockSize: number, next: Next): DiskPlan {
  const fits = (id: RestorePointId | null): boolean =>
    sealed.some(
      ({ restorePointId, manifest }) =>
        restorePointId === id && manifest.disks.some((one) => one.diskKey === disk.key && one.blockSize === blockSize),
    );
  const mode = (['full', 'cbt', 'cbt', 'comparison'] as const)[next(4)]!;
  const older = sealed[next(Math.max(1, sealed.length))]?.restorePointId ?? null;
  const base = mode === 'cbt' ? disk.base : mode === 'comparison' ? older : null;
  const isUsable = base !== null && fits(base) && (mode !== 'cbt' || base === sealed.at(-1)?.restorePointId);
  return planOf(disk.content.length, {
    diskKey: disk.key,
    ...(isUsable ? { mode, baseRestorePointId: base } : { mode: 'full' }),
  });
}

/** Sends all of a disk, dying a few times on the way. */
async function transfer(point: Point, plan: DiskPlan, disk: ModelDisk, next: Next): Promise<void> {
  const changed = union(disk.changed);
  for (let assignment = 1; ; assignment += 1) {
    const given = await assign(point, plan, assignment).catch((error: TidemarkError) => {
      if (error.code !== 'TRACKING_LOST' || plan.mode !== 'cbt' || !disk.wasSmaller) throw error;
      plan = planOf(disk.content.length, { diskKey: disk.key, mode: 'full' });
      return assign(point, plan, assignment);
    });
    const dies = assignment < 4 && next(2) === 0;
    await send({ assignment: given, disk: disk.content, changed, ...(dies ? { windows: next(3) } : {}) });
    if (next(4) === 0) await world.reopen({ clean: next(2) === 0, loseIndex: next(3) === 0 });
    if (!dies) return;
  }
}

async function checkAll(sealed: readonly SealOutcome[], hashes: ReadonlyMap<string, string>): Promise<void> {
  for (const { restorePointId, manifest } of sealed) {
    for (const { diskKey: key } of manifest.disks)
      expect(hashOf(await handRestore(world, restorePointId, key))).toBe(hashes.get(`${restorePointId} ${key}`));
  }
}

const kinds = [
  ['a plain', null],
  ['an encrypted', KEY_FILE],
] as const;

test.each(kinds)(
  'what %s one sealed comes back, whatever happened on the way',
  { timeout: 240_000 },
  async (_, secret) => {
    const { next } = seeded();
    world = await createTestRepository({ secret });
    const disks = ['d0', 'd1'].map((key): ModelDisk => ({
      key: diskKey(key),
      content: Buffer.alloc(sizeOf(next)),
      changed: [],
      base: null,
      wasSmaller: false,
    }));
    const sealed: SealOutcome[] = [];
    const hashes = new Map<string, string>();
    for (let session = 1; session <= SESSIONS; session += 1) {
      for (const disk of disks) {
        if (next(4) === 0) resize(disk, sizeOf(next));
        scribble(disk, next);
      }
      const blockSize = next(6) === 0 ? 256 * 1024 : MIB;
      const point = await openPoint(session, { blockSize, compression: compressions[next(compressions.length)]! });
      expect(point.base?.restorePointId ?? null).toBe(sealed.at(-1)?.restorePointId ?? null);
      for (const disk of disks) await transfer(point, planFor(disk, sealed, blockSize, next), disk, next);
      if (next(5) === 0) {
        expect(await abort(point)).toEqual({ outcome: 'aborted' });
        continue;
      }
      if (next(3) === 0) await world.reopen({ clean: next(2) === 0 });
      const outcome = await seal(point);
      sealed.push(outcome);
      for (const disk of disks) {
        hashes.set(`${outcome.restorePointId} ${disk.key}`, hashOf(disk.content));
        Object.assign(disk, { changed: [], base: outcome.restorePointId, wasSmaller: false });
      }
      await checkAll([outcome], hashes);
    }
    await world.reopen({ loseIndex: true });
    expect(world.repository.listSealed()).toHaveLength(sealed.length);
    await checkAll(sealed, hashes);
    expect(await readdir(join(world.folder, 'open'))).toEqual(['packs']);
    checkByStranger(sealed, hashes);
  },
);

/** Somebody else's reader, with nothing but the format's description. */
function checkByStranger(sealed: readonly SealOutcome[], hashes: ReadonlyMap<string, string>): void {
  const keys = world.secret && strangerKeys(world.folder, { keyFile: KEY_FILE.content });
  const records = strangerRecords(world.folder, keys);
  const manifests = strangerManifests(world.folder, keys);
  expect(manifests.map((one) => one.restorePointId).sort()).toEqual(sealed.map((one) => one.restorePointId).sort());
  for (const { restorePointId, disks } of manifests) {
    for (const disk of disks)
      expect(hashOf(strangerRestore(records, disk, keys))).toBe(hashes.get(`${restorePointId} ${disk.diskKey}`));
  }
}
