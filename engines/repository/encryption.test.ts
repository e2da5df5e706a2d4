/** An encrypted repository as its owner and a thief meet it. */
import { cp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { diskKey, hostId, jobId, lineageId, runKey, sessionId, vmId } from '../../schema/domain/ids.ts';
import type { RestorePointSpec } from '../../schema/domain/restore-point.ts';
import { digestOf } from '../../schema/repository/digest.ts';
import { encodeRepositoryFile } from '../../schema/repository/documents.ts';
import type { Secret } from '../../schema/repository/secrets.ts';
import { plainVault } from '../../schema/repository/vault.ts';
import { handRestore } from '../../tests/fixtures/repository/hand-restore.ts';
import { codes, inEachTest } from '../../tests/fixtures/repository/in-each-test.ts';
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
import { diskOf } from '../../tests/fixtures/repository/verbs.ts';
import { openRepository } from './open-repository.ts';
import { openRecordSink } from './pack/record-sink.ts';
import type { Repository } from './repository.ts';

let world: TestRepository;
const { assign, send, abort, sealedFull, instead } = inEachTest(
  () => createTestRepository({ secret: KEY_FILE }),
  (made) => (world = made),
);

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
    await world.reopen({ loseIndex: true });
  });

  test('a passphrase opens what was made with it', async () => {
    await world.repository.close();
    const { file } = await goldenKeys();
    for (const path of [jsonFile(), copyFile()]) await writeFile(path, encodeRepositoryFile(file));
    const repository = await openWith(PASSPHRASE);
    expect(repository.laneKeys?.dataKeys.map(({ id }) => id)).toEqual([1, 2]);
    await repository.close();
    await world.reopen({ loseIndex: true });
  });

  test('weak ones make no repository', async () => {
    await world.repository.close();
    await rm(world.folder, { recursive: true });
    await expect(openWith({ kind: 'passphrase', passphrase: '1234567' })).rejects.toMatchObject(codes('BAD_REQUEST'));
    expect(await readdir(world.folder)).not.toContain('repository.json');
    await world.reopen({ loseIndex: true });
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
      compression: number === 0 ? ('none' as const) : ('balanced' as const),
      ...NAMES,
    } as RestorePointSpec);
    const point = { restorePointId: id, run };
    const plan = planOf(content.length, { diskKey: KEY, identity: IDENTITY });
    await world.repository.declareDisks({
      ...point,
      disks: [{ diskKey: KEY, sizeBytes: content.length, identity: IDENTITY }],
    });
    await send({ assignment: await assign(point, plan), disk: content });
    if (end === 'sealed') {
      await world.repository.seal(sealOf(id, run));
      await world.repository.setFlags(id, { hold: 'asked by the lawyers' });
    }
    if (end === 'aborted') await abort(point);
  }
}

/** What of it can be read anywhere, in names of files or in their bytes. */
async function readable(): Promise<string[]> {
  const blocks = [0, 1, 2].map((block) => digestOf(content.subarray(block * MIB, (block + 1) * MIB)));
  const texts = [
    'sales-database-7',
    'berlin-host-3',
    'Payroll of 2026',
    'nightly-payroll',
    'session-of-monday',
    'fedcba9876543210',
    'runofsales',
    IDENTITY,
    KEY,
    'content of a secret',
    'asked by the lawyers',
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

test('no lane writes to it in the clear', () => {
  const { storage, seams } = world;
  const refused = expect.objectContaining({ code: 'BUG' }) as Error;
  expect(() => openRecordSink({ storage, seams, vault: plainVault })).toThrow(refused);
});

test('nothing that was named, and nothing of a disk, can be read in its files; in a plain one all of it can', async () => {
  await liveALittle();
  await world.sink.close();
  expect(await readable()).toEqual([]);
  await instead(createTestRepository);
  await liveALittle();
  await world.sink.close();
  // Digests in hex are nowhere.
  expect(await readable()).toHaveLength(11 + 3);
});
