/** An encrypted repository as its owner, a thief and a forger meet it. */
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  diskKey,
  hostId,
  jobId,
  lineageId,
  type RestorePointId,
  runKey,
  sessionId,
  vmId,
} from '../../schema/domain/ids.ts';
import type { RestorePointSpec } from '../../schema/domain/restore-point.ts';
import { digestOf, sumOf } from '../../schema/repository/digest.ts';
import { encodeRepositoryFile } from '../../schema/repository/documents.ts';
import { decodeRecordHeader, encodeRecordHeader } from '../../schema/repository/record.ts';
import type { Secret } from '../../schema/repository/secrets.ts';
import { plainVault } from '../../schema/repository/vault.ts';
import { handRestore } from '../../tests/fixtures/repository/hand-restore.ts';
import { goldenKeys, KEY_FILE, PASSPHRASE } from '../../tests/fixtures/repository/keys.ts';
import {
  createTestRepository,
  DISK,
  MAIN,
  MIB,
  planOf,
  sealOf,
  type TestRepository,
} from '../../tests/fixtures/repository/test-repository.ts';
import { diskOf, verbsOf } from '../../tests/fixtures/repository/verbs.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { addKey, describeKeys, removeKey, rotateKey, type KeyWork } from './change-keys.ts';
import { openRepository } from './open-repository.ts';
import { createPackWriter } from './pack/pack-writer.ts';
import type { Repository } from './repository.ts';

let world: TestRepository;
beforeEach(async () => {
  world = await createTestRepository({ secret: KEY_FILE });
});
afterEach(() => world.close());
const { openPoint, assign, send, seal, abort, sealedFull } = verbsOf(() => world);
const codes = (code: string, text = '') =>
  ({ code, message: expect.stringContaining(text) as string }) as Record<string, unknown>;

const at = (...names: string[]): string => join(world.folder, ...names);
const jsonFile = (): string => at('repository.json');
const copyFile = (): string => at('repository.json.copy');
const both = (): Promise<string[]> => Promise.all([jsonFile(), copyFile()].map((file) => readFile(file, 'utf8')));

/** Opens it beside the world's own, which has to be closed. */
async function openWith(secret: Secret | null): Promise<Repository> {
  const indexFolder = at('..', 'index-2');
  return openRepository({ storage: world.storage, repositoryId: MAIN, secret, indexFolder, seams: world.seams });
}

/** Every file below a folder, by path. */
async function filesBelow(folder: string): Promise<Map<string, Buffer>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const contents = await Promise.all(paths.map(async (path) => [path, await readFile(path)] as const));
  return new Map(contents);
}

describe('the secret', () => {
  test('is needed, and has to be the right one; of a refusal nothing is left', async () => {
    const sealed = await sealedFull(1, diskOf(3));
    await world.repository.close();
    const before = await both();
    const wrong: Secret = { kind: 'keyfile', content: Buffer.from('another key, of 32 bytes at least') };
    await expect(openWith(null)).rejects.toMatchObject(codes('KEY_MISSING', 'repository main is encrypted'));
    await expect(openWith(wrong)).rejects.toMatchObject(codes('WRONG_KEY'));
    await expect(openWith({ kind: 'passphrase', passphrase: 'a passphrase' })).rejects.toMatchObject(
      codes('WRONG_KEY'),
    );
    expect(await both()).toEqual(before);
    await world.reopen();
    expect((await handRestore(world, sealed.restorePointId, DISK)).equals(diskOf(3))).toBe(true);
  });

  test('for a plain repository is refused: somebody may have put it there', async () => {
    await world.repository.close();
    const plain = await createTestRepository();
    await plain.repository.close();
    await rm(world.folder, { recursive: true });
    await cp(plain.folder, world.folder, { recursive: true });
    await plain.close();
    await expect(openWith(KEY_FILE)).rejects.toMatchObject(codes('NOT_ENCRYPTED'));
    await rm(world.folder, { recursive: true });
    await world.reopen();
  });

  test('a passphrase opens what was made with it', async () => {
    await world.repository.close();
    const { file } = await goldenKeys();
    for (const path of [jsonFile(), copyFile()]) await writeFile(path, encodeRepositoryFile(file));
    const repository = await openWith(PASSPHRASE);
    expect(repository.laneKeys?.dataKeys.map(({ id }) => id)).toEqual([1, 2]);
    await repository.close();
    await world.reopen();
  });

  test('weak ones make no repository', async () => {
    await world.repository.close();
    await rm(world.folder, { recursive: true });
    await expect(openWith({ kind: 'passphrase', passphrase: '1234567' })).rejects.toMatchObject(codes('BAD_REQUEST'));
    expect(await readdir(world.folder)).not.toContain('repository.json');
    await world.reopen();
  });
});

describe('repository.json', () => {
  const flip = async (path: string, position: number): Promise<void> => {
    const bytes = await readFile(path);
    bytes[position]! ^= 1;
    await writeFile(path, bytes);
  };

  test('has a copy beside it, which serves when it is missing or any of it is damaged', async () => {
    const sealed = await sealedFull(1, diskOf(2));
    const [text, copy] = (await both()) as [string, string];
    expect(copy).toBe(text);
    const harms = [() => rm(jsonFile()), () => flip(jsonFile(), 700), () => writeFile(jsonFile(), text.slice(0, -9))];
    for (const harm of [...harms, () => rm(copyFile()), () => flip(copyFile(), 40)]) {
      await harm();
      await world.reopen();
      expect(await both()).toEqual([text, text]);
      expect((await handRestore(world, sealed.restorePointId, DISK)).equals(diskOf(2))).toBe(true);
    }
    await sealedFull(2, diskOf(1, 'b'));
  });

  test('that is damaged as its copy is, or not of one repository with it, is refused and left alone', async () => {
    await world.repository.close();
    const [text] = await both();
    await flip(jsonFile(), 700);
    await flip(copyFile(), 701);
    const damaged = await both();
    await expect(openWith(KEY_FILE)).rejects.toMatchObject(codes('REPOSITORY_CORRUPT', 'repository.json'));
    expect(await both()).toEqual(damaged);
    const { file } = await goldenKeys();
    await writeFile(jsonFile(), text!);
    await writeFile(copyFile(), encodeRepositoryFile(file));
    await expect(openWith(KEY_FILE)).rejects.toMatchObject(codes('REPOSITORY_CORRUPT', 'different repositories'));
    await rm(copyFile());
    await world.reopen();
  });

  test('a wrong key writes no copy', async () => {
    await world.repository.close();
    await rm(copyFile());
    await expect(openWith(PASSPHRASE)).rejects.toMatchObject(codes('WRONG_KEY'));
    expect(await readdir(world.folder)).not.toContain('repository.json.copy');
    await world.reopen();
  });
});

// ---- what a thief sees ----------------------------------------------------------------------------

const NAMES: Partial<RestorePointSpec> = {
  vm: { vmId: vmId('sales-database-7'), hostId: hostId('berlin-host-3') },
  vmName: 'Payroll of 2026',
  jobId: jobId('nightly-payroll'),
  sessionId: sessionId('session-of-monday'),
  lineage: lineageId('fedcba9876543210'),
};
const IDENTITY = 'serial-number-4711';
const KEY = diskKey('accounts-disk');
const content = diskOf(3, 'content of a secret file');

/** One sealed, one open, one aborted. */
async function liveALittle(): Promise<void> {
  for (const [number, end] of ['sealed', 'open', 'aborted'].entries()) {
    const run = runKey(`runofsales${number}0`);
    const { restorePointId: id } = await world.repository.openRestorePoint({
      run,
      nominalTime: '2026-11-24T16:00:00.000Z',
      blockSize: MIB,
      codec: number === 0 ? 'none' : 'zstd',
      ...NAMES,
    } as RestorePointSpec);
    const point = { restorePointId: id, run };
    const plan = planOf(content.length, { diskKey: KEY, identity: IDENTITY });
    await world.repository.declareDisks({
      ...point,
      disks: [{ diskKey: KEY, sizeBytes: content.length, identity: IDENTITY }],
    });
    await send({ assignment: await assign(point, plan), disk: content });
    if (end === 'sealed') await world.repository.seal(sealOf(id, run));
    if (end === 'aborted') await abort(point);
  }
}

/** What of it can be read anywhere, in names of files or in their bytes. */
async function readable(): Promise<string[]> {
  const blocks = [0, 1, 2].map((block) => digestOf(content.subarray(block * MIB, (block + 1) * MIB)));
  const texts = [
    ...['sales-database-7', 'berlin-host-3', 'Payroll of 2026', 'nightly-payroll', 'session-of-monday'],
    ...['fedcba9876543210', 'runofsales', IDENTITY, KEY, 'content of a secret'],
  ];
  const needles = new Map<string, Buffer>(texts.map((text) => [text, Buffer.from(text)]));
  for (const [block, digest] of blocks.entries()) {
    needles.set(`digest of block ${block}`, digest);
    needles.set(`digest of block ${block} in hex`, Buffer.from(digest.toString('hex')));
  }
  const files = await filesBelow(world.folder);
  const haystacks = [...files].flatMap(([path, bytes]) => [Buffer.from(path.slice(world.folder.length)), bytes]);
  return [...needles].filter(([, needle]) => haystacks.some((bytes) => bytes.includes(needle))).map(([name]) => name);
}

test('nothing that was named, and nothing of a disk, can be read in its files; in a plain one all of it can', async () => {
  await liveALittle();
  await world.sink.close();
  expect(await readable()).toEqual([]);
  await world.close();
  world = await createTestRepository();
  await liveALittle();
  await world.sink.close();
  expect(await readable()).toHaveLength(10 + 2 * 3 - 3);
});

// ---- what a forger does ---------------------------------------------------------------------------

describe('a record', () => {
  /** The pack of the one block there is, and where the record lies in it. */
  async function onlyRecord() {
    const sealed = await sealedFull(1, diskOf(1));
    await world.reopen();
    const { restoreSource } = world.repository;
    const { restorePointId: id } = sealed;
    await restoreSource.begin('look', { purpose: 'restore', restorePointId: id, diskKey: DISK });
    const { places } = await restoreSource.resolve('look', 0);
    await restoreSource.end('look');
    const { pack, offset, storedLength } = places[0]!;
    const path = at('packs', pack.slice(0, 2), pack);
    const bytes = await readFile(path);
    const header = decodeRecordHeader(bytes.subarray(offset))!;
    return { id, pack, path, bytes, offset, header, payloadAt: offset + 128, storedLength };
  }
  const restored = (id: RestorePointId): Promise<Buffer> => handRestore(world, id, DISK);

  test('that rotted is damaged; that was changed by somebody who made its sum right was tampered with', async () => {
    const { id, path, bytes, offset, header, payloadAt, storedLength } = await onlyRecord();
    expect((await restored(id)).equals(diskOf(1))).toBe(true);
    bytes[payloadAt + 5]! ^= 1;
    await writeFile(path, bytes);
    await expect(restored(id)).rejects.toMatchObject(codes('DAMAGED_BLOCK', 'its payload is damaged'));
    const payloadSum = sumOf(bytes.subarray(payloadAt, payloadAt + storedLength));
    bytes.set(encodeRecordHeader({ ...header, payloadSum }), offset);
    await writeFile(path, bytes);
    await expect(restored(id)).rejects.toMatchObject(codes('TAMPERED', 'authentication tag'));
  });

  test('in the clear is no record of it, whatever pack it lies in', async () => {
    const { id, path, header, payloadAt: _at, pack } = await onlyRecord();
    await rm(path);
    const uuid = JSON.parse(await readFile(jsonFile(), 'utf8')).uuid as string;
    const forged = 'f'.repeat(32);
    const writer = createPackWriter(world.storage, 'blocks', uuid, forged);
    const { restorePointId: by, id: recordId } = header;
    const record = { kind: 'block', codec: 'none', rawLength: MIB, id: recordId, restorePointId: by } as const;
    const { header: bytes, parts } = plainVault.sealRecord({ ...record, payload: diskOf(1, 'forged') });
    writer.append(bytes, ...parts);
    await writer.publish();
    await world.reopen({ loseIndex: true });
    expect(pack).not.toBe(forged);
    await expect(restored(id)).rejects.toMatchObject(codes('TAMPERED', 'not encrypted'));
  });
});

describe('a document', () => {
  const manifestOf = (vm: string, id: string): string => at('manifests', world.vault.nameOf(vm), id);
  const VM = '22222222-0000-4000-8000-000000000001';
  const listed = (): string[] => world.repository.listSealed().map(({ restorePointId: id }) => id);

  test('serves under its own name only, and what is wrong with one hinders no other', async () => {
    const [first, second] = [await sealedFull(1, diskOf(1)), await sealedFull(2, diskOf(1, 'b'))];
    const [one, two] = [first, second].map(({ restorePointId: id }) => manifestOf(VM, id)) as [string, string];
    await cp(one, two);
    await mkdir(manifestOf('another', '..'), { recursive: true });
    await cp(one, manifestOf('another', first.restorePointId));
    await world.reopen();
    expect(listed()).toEqual([first.restorePointId]);
    expect(await readFile(two, 'utf8')).toBe(await readFile(one, 'utf8'));
    await sealedFull(3, diskOf(1));
  });

  test('in the clear is none, of whatever role', async () => {
    const plain = await createTestRepository();
    const verbs = verbsOf(() => plain);
    const { restorePointId: id } = await verbs.sealedFull(1, diskOf(1));
    const point = await verbs.openPoint(2);
    const buried = await verbs.openPoint(3);
    await verbs.abort(buried);
    await plain.repository.close();
    await mkdir(manifestOf(VM, '..'), { recursive: true });
    await cp(join(plain.folder, 'manifests', VM, id), manifestOf(VM, id));
    await cp(join(plain.folder, 'open', point.restorePointId), at('open', point.restorePointId), { recursive: true });
    await cp(join(plain.folder, 'aborted', buried.restorePointId), at('aborted', buried.restorePointId));
    await plain.close();
    await world.reopen();
    expect([listed(), world.repository.listOpen()]).toEqual([[], []]);
    expect((await openPoint(3)).restorePointId).not.toBe(buried.restorePointId);
  });

  test('a ledger of which a frame was taken out is not gone on with', async () => {
    const point = await openPoint(1);
    const disk = diskOf(70);
    await send({ assignment: await assign(point, planOf(disk.length)), disk });
    const path = at('open', point.restorePointId, 'ledger');
    const ledger = await readFile(path);
    const first = 64 + ledger.readUInt32LE(8);
    expect(first).toBeLessThan(ledger.length);
    await writeFile(path, ledger.subarray(first));
    await world.reopen();
    expect(world.repository.listOpen()).toEqual([]);
    // Cut at its end, as a power loss may, it is gone on with from there.
    await writeFile(path, ledger.subarray(0, first));
    await world.reopen();
    const again = await assign(point, planOf(disk.length), 2);
    expect((await send({ assignment: again, disk })).windowsSent).toBe(1);
    await seal(point);
    expect((await handRestore(world, point.restorePointId, DISK)).equals(disk)).toBe(true);
  });
});

// ---- changes of the keys --------------------------------------------------------------------------

describe('keys', () => {
  const work = (secret: Secret = KEY_FILE): KeyWork => ({
    storage: world.storage,
    repositoryId: MAIN,
    secret,
    seams: testSeams(),
    cost: { n: 1024, r: 8, p: 1 },
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
    const [text, copy] = (await both()) as [string, string];
    expect([copy, text.includes(first)]).toEqual([text, false]);
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
    for (const bytes of (await filesBelow(at('packs'))).values())
      used.add(decodeRecordHeader(bytes.subarray(64))!.encryption!.keyId);
    expect([...used].sort()).toEqual([1, 2]);
    for (const [point, seed] of [
      [first, 'a'],
      [second, 'b'],
    ] as const)
      expect((await handRestore(world, point.restorePointId, DISK)).equals(diskOf(2, seed))).toBe(true);
  });
});
