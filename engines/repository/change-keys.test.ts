import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { decodeRecordHeader } from '../../schema/repository/record.ts';
import type { Secret } from '../../schema/repository/secrets.ts';
import { handRestore } from '../../tests/fixtures/repository/hand-restore.ts';
import { codes, inEachTest } from '../../tests/fixtures/repository/in-each-test.ts';
import { CHEAP, KEY_FILE, PASSPHRASE } from '../../tests/fixtures/repository/keys.ts';
import {
  createTestRepository,
  DISK,
  MAIN,
  type TestRepository,
} from '../../tests/fixtures/repository/test-repository.ts';
import { diskOf } from '../../tests/fixtures/repository/verbs.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { addKey, describeKeys, removeKey, rotateKey, type KeyWork } from './change-keys.ts';
import { openRepository } from './open-repository.ts';

let world: TestRepository;
const { sealedFull } = inEachTest(
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

test('are listed while it is in use, and changed only when it is not', async () => {
  expect(await slots()).toHaveLength(1);
  await expect(rotateKey(work())).rejects.toMatchObject(codes('REPOSITORY_IN_USE'));
  await world.repository.close();
  await expect(rotateKey(work(PASSPHRASE))).rejects.toMatchObject(codes('WRONG_KEY'));
  const nowhere = { ...work(), repositoryId: 'other' as typeof MAIN };
  await expect(rotateKey(nowhere)).rejects.toMatchObject(codes('REPOSITORY_NOT_ONE'));
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
  const used = new Set<number>();
  for (const entry of await readdir(join(world.folder, 'packs'), { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const bytes = await readFile(join(entry.parentPath, entry.name));
    used.add(decodeRecordHeader(bytes.subarray(64))!.encryption!.keyId);
  }
  expect([...used].sort((a, b) => a - b)).toEqual([1, 2]);
  for (const [point, seed] of [
    [first, 'a'],
    [second, 'b'],
  ] as const)
    expect((await handRestore(world, point.restorePointId, DISK)).equals(diskOf(2, seed))).toBe(true);
});
