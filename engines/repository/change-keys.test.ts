import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { errorCodeOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { RecordSink } from '../../schema/domain/seams.ts';
import { encodeRepositoryFile, parseRepositoryFile, type RepositoryFile } from '../../schema/repository/documents.ts';
import { keySumOf, signedTextOf } from '../../schema/repository/key-shapes.ts';
import { unlock, type DataKeys } from '../../schema/repository/keys.ts';
import type { Secret } from '../../schema/repository/secrets.ts';
import type { Vault } from '../../schema/repository/vault.ts';
import { FaultyDisk } from '../../tests/fixtures/repository/faulty-disk.ts';
import { handRestore } from '../../tests/fixtures/repository/hand-restore.ts';
import { codes, inEachTest } from '../../tests/fixtures/repository/in-each-test.ts';
import { CHEAP, goldenKeys, KEY_FILE, PASSPHRASE } from '../../tests/fixtures/repository/keys.ts';
import {
  createTestRepository,
  DISK,
  MAIN,
  planOf,
  type TestRepository,
} from '../../tests/fixtures/repository/test-repository.ts';
import { dataKeysUsed } from '../../tests/fixtures/repository/keys-used.ts';
import { storageOn } from '../../tests/fixtures/repository/run-life.ts';
import { diskOf } from '../../tests/fixtures/repository/verbs.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { addKey, describeKeys, removeKey, rotateKey, type KeyWork } from './change-keys.ts';
import { openRepository } from './open-repository.ts';
import { openRecordSink } from './pack/record-sink.ts';
import { claimRepository } from './storage/claim-repository.ts';
import { layout } from './storage/layout.ts';
import { readRepositoryFile } from './storage/repository-file.ts';
import type { Staging } from './storage/staging.ts';

let world: TestRepository;
const { openPoint, assign, send, seal, sealedFull, check, instead } = inEachTest(
  () => createTestRepository({ secret: KEY_FILE }),
  (made) => (world = made),
);
const openWith = (secret: Secret) => {
  const { storage, seams } = world;
  return openRepository({ storage, repositoryId: MAIN, secret, indexFolder: join(world.folder, '../index-2'), seams });
};

const work = (secret: Secret = KEY_FILE): KeyWork => ({
  storage: world.storage,
  repositoryId: MAIN,
  secret,
  seams: testSeams(),
  cost: CHEAP,
});
const slots = async (): Promise<string[]> => (await describeKeys(world.storage, MAIN)).keySlots.map(({ id }) => id);
const released = async (change: () => Promise<unknown>): Promise<unknown> => {
  await world.repository.close();
  return change();
};

/** Of our repository, with its sum right, by somebody who has other keys. */
function forged(file: RepositoryFile, uuid: string): RepositoryFile {
  const changed = { ...file, uuid };
  const { mac } = file.keyCheck!;
  return { ...changed, keyCheck: { mac, sum: keySumOf(signedTextOf(changed), mac) } };
}

test('are refused to whoever has no key, or means another repository', async () => {
  expect(await slots()).toHaveLength(1);
  await expect(rotateKey(work(PASSPHRASE))).rejects.toMatchObject(codes('WRONG_KEY'));
  const nowhere = { ...work(), repositoryId: 'other' as typeof MAIN };
  await expect(rotateKey(nowhere)).rejects.toMatchObject(codes('REPOSITORY_NOT_ONE'));
  await world.repository.close();
  await expect(rotateKey(work(PASSPHRASE))).rejects.toMatchObject(codes('WRONG_KEY'));
  await world.reopen();
});

test('a slot is added, the old one removed, and nobody locks himself out', async () => {
  const sealed = await sealedFull(1, diskOf(2));
  const [first] = (await slots()) as [string];
  await released(() => addKey(work(), PASSPHRASE));
  expect((await slots())[0]).toBe(first);
  await expect(removeKey(work(), first)).rejects.toMatchObject(codes('BAD_REQUEST', 'configure another'));
  await expect(removeKey(work(), '00000000')).rejects.toMatchObject(codes('NOT_FOUND'));
  await removeKey(work(PASSPHRASE), first);
  const text = await readFile(join(world.folder, 'repository.json'), 'utf8');
  expect(await readFile(join(world.folder, 'repository.json.copy'), 'utf8')).toBe(text);
  expect(text).not.toContain(first);
  await expect(openWith(KEY_FILE)).rejects.toMatchObject(codes('WRONG_KEY'));
  const repository = await openWith(PASSPHRASE);
  expect(repository.listSealed()).toMatchObject([sealed]);
  await repository.close();
  await addKey(work(PASSPHRASE), KEY_FILE);
  await world.reopen();
});

test('after a rotation new records have the new data key, and old ones are read', async () => {
  const first = await sealedFull(1, diskOf(2));
  await world.sink.close();
  expect(await released(() => rotateKey(work()))).toMatchObject({ id: 2 });
  await world.reopen();
  const second = await sealedFull(2, diskOf(2, 'b'));
  await world.reopen({ loseIndex: true });
  expect(await dataKeysUsed(world.folder)).toEqual([1, 2]);
  for (const [point, seed] of [
    [first, 'a'],
    [second, 'b'],
  ] as const)
    expect((await handRestore(world, point.restorePointId, DISK)).equals(diskOf(2, seed))).toBe(true);
});

test('a repository.json from before a rotation, put in place, does not take the data key away that records have', async () => {
  const path = join(world.folder, 'repository.json');
  const older = await readFile(path, 'utf8');
  await released(() => rotateKey(work()));
  await world.reopen();
  const sealed = await sealedFull(1, diskOf(2));
  await world.sink.close();
  await writeFile(path, older);
  expect(await rotateKey(work())).toMatchObject({ id: 3 });
  for (let opening = 0; opening < 2; opening += 1) {
    await world.reopen();
    expect((await handRestore(world, sealed.restorePointId, DISK)).equals(diskOf(2))).toBe(true);
    await writeFile(path, older);
  }
  await writeFile(path, await readFile(`${path}.copy`, 'utf8'));
});

describe('while its owner goes on', () => {
  /** What the lanes were told, by the ids of data keys. */
  let told: { dataKeys: number[]; upcoming: number[] }[];
  let lane: Vault | null;
  let fail: boolean;
  beforeEach(async () => {
    [told, lane, fail] = [[], null, false];
    const tellLanes = async (keys: DataKeys): Promise<void> => {
      if (fail) throw new Error('a lane is ill');
      const idsOf = (some: DataKeys['dataKeys']): number[] => some.map(({ id }) => id);
      told.push({ dataKeys: idsOf(keys.dataKeys), upcoming: idsOf(keys.upcoming) });
      lane?.takeDataKeys(keys);
    };
    await instead(() => createTestRepository({ secret: KEY_FILE, open: { tellLanes } }));
  });

  function beginLane(): RecordSink {
    lane = world.vault;
    return openRecordSink({ storage: world.storage, vault: lane, seams: world.seams });
  }
  /** A sealed full, in a pack of its own. */
  async function sealedBy(sink: RecordSink, number: number, disk: Buffer) {
    const point = await openPoint(number);
    await send({ assignment: await assign(point, planOf(disk.length)), disk, sink });
    await sink.close();
    return seal(point);
  }

  test('a leaked passphrase is locked out in the middle of a transfer', async () => {
    const disk = diskOf(3);
    await addKey(work(), PASSPHRASE);
    const [first] = (await slots()) as [string];
    const point = await openPoint(1);
    const assignment = await assign(point, planOf(disk.length));
    await removeKey(work(PASSPHRASE), first);
    await expect(addKey(work(), PASSPHRASE)).rejects.toMatchObject(codes('WRONG_KEY'));
    await send({ assignment, disk });
    const sealed = await seal(point);
    expect((await handRestore(world, sealed.restorePointId, DISK)).equals(disk)).toBe(true);
    await world.sink.close();
    await world.repository.close();
    await expect(openWith(KEY_FILE)).rejects.toMatchObject(codes('WRONG_KEY'));
    const repository = await openWith(PASSPHRASE);
    expect(repository.listSealed()).toMatchObject([{ restorePointId: sealed.restorePointId }]);
    await repository.close();
    await addKey(work(PASSPHRASE), KEY_FILE);
    await world.reopen();
  });

  test('a new data key is taken up when the next restore point is opened: all can read with it before one writes', async () => {
    const sink = beginLane();
    const first = await sealedBy(sink, 1, diskOf(2));
    await rotateKey(work());
    expect(told).toEqual([]);
    const second = await sealedBy(sink, 2, diskOf(2, 'b'));
    expect(told).toEqual([
      { dataKeys: [1], upcoming: [2] },
      { dataKeys: [1, 2], upcoming: [] },
    ]);
    expect(await dataKeysUsed(world.folder)).toEqual([1, 2]);
    // Those that begin from here on know it, and so do checks; told once.
    expect(world.repository.laneKeys?.dataKeys.map(({ id }) => id)).toEqual([1, 2]);
    await sealedBy(sink, 3, diskOf(1, 'c'));
    expect(told).toHaveLength(2);
    expect(await check()).toMatchObject({ damages: [], whole: true });
    for (let opening = 0; opening < 2; opening += 1) {
      expect((await handRestore(world, first.restorePointId, DISK)).equals(diskOf(2))).toBe(true);
      expect((await handRestore(world, second.restorePointId, DISK)).equals(diskOf(2, 'b'))).toBe(true);
      await world.reopen({ clean: false });
    }
  });

  test('while a lane cannot take it the old one goes on, and it is tried again', async () => {
    const sink = beginLane();
    await rotateKey(work());
    fail = true;
    await sealedBy(sink, 1, diskOf(2));
    expect(await dataKeysUsed(world.folder)).toEqual([1]);
    fail = false;
    await sealedBy(sink, 2, diskOf(2, 'b'));
    expect(await dataKeysUsed(world.folder)).toEqual([1, 2]);
  });

  test('a new data key is used only when it is in the copy as well: a death between the two is mended first', async () => {
    const sink = beginLane();
    const copy = join(world.folder, 'repository.json.copy');
    const older = await readFile(copy, 'utf8');
    await rotateKey(work());
    await writeFile(copy, older);
    // While the copy cannot be written the old key goes on.
    const inTheWay = join(world.folder, '.new-repository.json.copy');
    await mkdir(inTheWay);
    await sealedBy(sink, 1, diskOf(1, 'b'));
    expect(await dataKeysUsed(world.folder)).toEqual([1]);
    await rm(inTheWay, { recursive: true });
    const sealed = await sealedBy(sink, 2, diskOf(2));
    expect(await dataKeysUsed(world.folder)).toEqual([1, 2]);
    await writeFile(join(world.folder, 'repository.json'), 'not what it was');
    await world.reopen();
    expect((await handRestore(world, sealed.restorePointId, DISK)).equals(diskOf(2))).toBe(true);
  });

  test('an older repository.json and copy put back under an owner are told, not taken for no change', async () => {
    const told: string[] = [];
    const { log } = world.seams;
    world.seams.log = { ...log, warn: (text, details) => void told.push(`${text}: ${String(details?.['error'])}`) };
    const path = join(world.folder, 'repository.json');
    const older = await readFile(path, 'utf8');
    await rotateKey(work());
    const newer = await readFile(path, 'utf8');
    await openPoint(1);
    for (const name of [path, `${path}.copy`]) await writeFile(name, older);
    // Of the same number, and another key.
    await rotateKey(work());
    await openPoint(2);
    expect(told).toEqual([expect.stringContaining('lacks data key 2, which is in use')]);
    for (const name of [path, `${path}.copy`]) await writeFile(name, newer);
    await openPoint(3);
    expect(told).toHaveLength(1);
    world.seams.log = log;
  });

  test('a repository.json that cannot be read, or was changed by somebody else, keeps no backup from going on', async () => {
    const sink = beginLane();
    const path = join(world.folder, 'repository.json');
    const text = await readFile(path, 'utf8');
    const { file } = await goldenKeys();
    const { uuid } = parseRepositoryFile(text, path);
    for (const [at, spoilt] of ['not what it was', encodeRepositoryFile(forged(file, uuid))].entries()) {
      for (const name of [path, `${path}.copy`]) await writeFile(name, spoilt);
      const sealed = await sealedBy(sink, at + 1, diskOf(2, `${at}`));
      expect((await handRestore(world, sealed.restorePointId, DISK)).equals(diskOf(2, `${at}`))).toBe(true);
    }
    expect(await dataKeysUsed(world.folder)).toEqual([1]);
    for (const name of [path, `${path}.copy`]) await writeFile(name, text);
  });
});

describe('of several who change them', () => {
  const others = ['one', 'two', 'three'].map((name): Secret => ({
    kind: 'passphrase',
    passphrase: `passphrase ${name}`,
  }));

  test('at once none loses what another did, nor does an owner who mends the copy at his start', async () => {
    const copy = join(world.folder, 'repository.json.copy');
    const [first] = (await slots()) as [string];
    const older = await readFile(copy, 'utf8');
    await addKey(work(), PASSPHRASE);
    await writeFile(copy, older);
    await world.repository.close();
    const made = await Promise.all([
      ...others.map((secret) => addKey(work(), secret)),
      world.reopen(),
      rotateKey(work()),
      rotateKey(work(PASSPHRASE)),
    ]);
    expect((await slots()).toSorted()).toEqual(
      [first, (await slots())[1]!, ...made.slice(0, 3).map((slot) => (slot as { id: string }).id)].toSorted(),
    );
    const { keySlots, dataKeys } = await describeKeys(world.storage, MAIN);
    expect(keySlots).toHaveLength(5);
    expect(dataKeys.map(({ id }) => id)).toEqual([1, 2, 3]);
    expect(await readFile(copy, 'utf8')).toBe(await readFile(join(world.folder, 'repository.json'), 'utf8'));
    // Two who lock each other out: one of them comes too late.
    const [, second] = keySlots.map(({ id }) => id);
    const both = await Promise.allSettled([removeKey(work(), second!), removeKey(work(PASSPHRASE), first)]);
    expect(both.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'WRONG_KEY' } });
    expect(both.find(({ status }) => status === 'fulfilled')).toBeDefined();
    expect(await slots()).toHaveLength(4);
    await addKey(work(others[0]), KEY_FILE);
    await world.reopen();
  });

  test('an owner needs the file for himself only to mend it, and on a full disk not even then', async () => {
    await world.repository.close();
    const { staging } = world.storage;
    const full = new TidemarkError('REPOSITORY_FULL', 'no room for a lock');
    const withoutRoom: Staging = {
      ...staging,
      lock: (name) => {
        if (name !== layout.fileLock) return staging.lock(name);
        throw full;
      },
    };
    const claim = { repositoryId: MAIN, secret: KEY_FILE, seams: world.seams };
    const copy = join(world.folder, 'repository.json.copy');
    const text = await readFile(copy, 'utf8');
    for (const now of [text, 'not what it was']) {
      await writeFile(copy, now);
      const { keys, release } = await claimRepository(withoutRoom, claim);
      release();
      expect(keys).not.toBeNull();
      expect(await readFile(copy, 'utf8')).toBe(now);
    }
    // Without the file itself somebody has to write it.
    await writeFile(copy, text);
    await rm(join(world.folder, 'repository.json'));
    await expect(claimRepository(withoutRoom, claim)).rejects.toBe(full);
    await world.reopen();
  });

  test('one who holds the file for long is waited for, then named', async () => {
    const release = world.storage.staging.lock(layout.fileLock);
    let waits = 0;
    const clock = { ...world.seams.clock, sleep: async () => void (waits += 1) };
    const impatient = { ...work(), seams: { ...testSeams(), clock } };
    await expect(rotateKey(impatient)).rejects.toMatchObject(
      codes('REPOSITORY_IN_USE', `process ${process.pid} has been changing ${join(world.folder, 'repository.json')}`),
    );
    expect(waits).toBeGreaterThan(10);
    const patient = rotateKey(work());
    release();
    expect(await patient).toMatchObject({ id: 2 });
  });
});

describe('a cut at any moment of a change', () => {
  /** As somebody else with the folder would find it: keys by the slot that opens them. */
  const opensWith = async (disk: FaultyDisk, secret: Secret) => {
    const found = await readRepositoryFile(storageOn(disk).staging);
    return unlock(found!.file, secret);
  };

  const changes: [string, (of: KeyWork, slot: string) => Promise<unknown>][] = [
    ['add', (of) => addKey(of, PASSPHRASE)],
    ['remove', (of, slot) => removeKey(of, slot)],
    ['rotate', (of) => rotateKey(of)],
  ];
  test.each(changes)(
    '%s: all that was there is, or all that is new; said again, it comes to its end',
    async (name, change) => {
      const start = new FaultyDisk();
      const { random } = testSeams();
      const seams = { ...testSeams(), random };
      const on = (disk: FaultyDisk, secret: Secret = KEY_FILE): KeyWork => {
        const storage = storageOn(disk);
        return { storage, repositoryId: MAIN, secret, seams, cost: CHEAP };
      };
      const claimed = await claimRepository(storageOn(start).staging, { repositoryId: MAIN, secret: KEY_FILE, seams });
      claimed.release();
      const leaked = await addKey(on(start), { kind: 'passphrase', passphrase: 'that has leaked' });
      let cuts = 0;
      for (let point = 1; ; point += 1) {
        const disk = start.afterKill();
        disk.crashAt(point);
        const whole = await change(on(disk), leaked.id).then(
          () => true,
          () => false,
        );
        if (whole && !disk.hasCrashed) break;
        cuts += 1;
        for (const left of [disk.afterKill(), disk.afterCrash('nothing'), disk.afterCrash(point)]) {
          const { master, vault } = await opensWith(left, KEY_FILE);
          expect(master.equals(claimed.keys!.master)).toBe(true);
          expect(vault.dataKeys.length).toBeGreaterThanOrEqual(1);
          // Said again: a removal that was done already has nothing to remove.
          await change(on(left), leaked.id).catch((error: unknown) => {
            if (name !== 'remove' || errorCodeOf(error) !== 'NOT_FOUND') throw error;
          });
          const files = [...left.files()].filter(([path]) => path.includes('/repository.json'));
          expect(new Set(files.map(([, content]) => content.toString())).size).toBe(1);
          const { keySlots, dataKeys } = parseRepositoryFile(files[0]![1].toString(), 'file');
          if (name === 'remove') expect(keySlots.map(({ id }) => id)).not.toContain(leaked.id);
          else expect(keySlots.map(({ id }) => id)).toContain(leaked.id);
          if (name === 'add') await opensWith(left, PASSPHRASE);
          if (name === 'rotate') expect(dataKeys.length).toBeGreaterThanOrEqual(2);
        }
      }
      expect(cuts).toBeGreaterThanOrEqual(8);
    },
  );
});
