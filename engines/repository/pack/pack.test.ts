import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { repositoryId, restorePointId } from '../../../schema/domain/ids.ts';
import type { RecordPlace, RecordSink } from '../../../schema/domain/seams.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import { encodeRepositoryFile, newRepositoryFile } from '../../../schema/repository/documents.ts';
import { plainVault } from '../../../schema/repository/vault.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { layout } from '../storage/layout.ts';
import { openStorage, type Storage } from '../storage/storage.ts';
import { listClosedPacks, readClosedPack } from './pack-reader.ts';
import { openRecordSink } from './record-sink.ts';
import { openRecordSource } from './record-source.ts';

const uuid = 'ab'.repeat(16);
const seams = testSeams();
const writer = restorePointId('00112233445566778899aabbccddeeff');
let folder: string;
let storage: Storage;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-pack-'));
  storage = openStorage({ kind: 'folder', folder });
  await mkdir(pathOf(layout.openPacks), { recursive: true });
  await writeFile(
    pathOf(layout.repositoryFile),
    encodeRepositoryFile(newRepositoryFile(repositoryId('main'), uuid, 'now')),
  );
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** Path of a name. */
const pathOf = (name: string): string => join(folder, name);
const contentOf = (number: number): Buffer => Buffer.alloc(10 + number * 3, `block ${number} `);
const idOf = (number: number): Buffer => digestOf(contentOf(number));
function put(sink: RecordSink, number: number): RecordPlace {
  const payload = contentOf(number);
  return sink.append({
    digest: idOf(number),
    codec: 'none',
    rawLength: payload.length,
    payload,
    restorePointId: writer,
  });
}

async function readBack(place: RecordPlace, number: number): Promise<boolean> {
  const source = openRecordSource({ storage, vault: plainVault });
  try {
    return Buffer.from(await source.read(place, idOf(number))).equals(contentOf(number));
  } finally {
    await source.close();
  }
}

const openPacks = (): Promise<string[]> => readdir(pathOf(layout.openPacks));
const closedIds = async (): Promise<string[]> => (await listClosedPacks(storage)).map((name) => name.packId);
async function recordsOf(packId: string): Promise<string[]> {
  const listing = await readClosedPack(storage, uuid, { contents: 'blocks', packId }, seams.log);
  return listing!.records.map(({ header }) => Buffer.from(header.id).toString('hex')).sort();
}
const ids = (...numbers: number[]): string[] => numbers.map((number) => idOf(number).toString('hex')).sort();

describe('sink', () => {
  test('rolls packs at their size, publishes full ones, and keeps every record readable on the way', async () => {
    const sink = openRecordSink({ storage, vault: plainVault, seams, targetBytes: 500 });
    const places = [];
    for (let number = 0; number < 20; number += 1) {
      places.push(put(sink, number));
      if (number % 3 === 0) await sink.sync();
      for (const [at, place] of places.entries()) expect(await readBack(place, at)).toBe(true);
    }
    await sink.close();
    expect(await openPacks()).toEqual([]);
    const packs = await closedIds();
    expect(packs.length).toBeGreaterThan(3);
    expect(new Set(places.map((place) => place.pack))).toEqual(new Set(packs));
    for (const [at, place] of places.entries()) expect(await readBack(place, at)).toBe(true);
    const listed = (await Promise.all(packs.map(recordsOf))).flat().sort();
    expect(listed).toEqual(ids(...places.keys()));
  });

  test('closing an empty sink leaves nothing, and it may be used again', async () => {
    const sink = openRecordSink({ storage, vault: plainVault, seams });
    await sink.sync();
    await sink.close();
    expect(await openPacks()).toEqual([]);
    const place = put(sink, 1);
    await sink.close();
    expect(await closedIds()).toEqual([place.pack]);
  });

  test('appends and syncs of several users go through each other', async () => {
    const sink = openRecordSink({ storage, vault: plainVault, seams, targetBytes: 2000 });
    const user = async (from: number): Promise<RecordPlace[]> => {
      const places = [];
      for (let number = from; number < from + 25; number += 1) {
        places.push(put(sink, number));
        await sink.sync();
        expect(await readBack(places.at(-1)!, number)).toBe(true);
      }
      return places;
    };
    await Promise.all([user(0), user(100), user(200)]);
    await sink.close();
    const listed = (await Promise.all((await closedIds()).map(recordsOf))).flat();
    expect(listed.length).toBe(75);
  });

  test('refuses what could not be read again', () => {
    const sink = openRecordSink({ storage, vault: plainVault, seams });
    const record = {
      digest: idOf(1),
      codec: 'none' as const,
      rawLength: 5,
      payload: Buffer.alloc(4),
      restorePointId: writer,
    };
    expect(() => sink.append(record)).toThrow(expect.objectContaining({ code: 'BUG' }) as Error);
    expect(() => sink.append({ ...record, rawLength: 4, digest: Buffer.alloc(31) })).toThrow(/record of 4 bytes/);
    const long = { ...record, codec: 'zstd' as const, payload: Buffer.alloc(22) };
    expect(() => sink.append(long)).toThrow(/stored in 22/);
  });

  test('a sync that fails loses the pack for everybody who waits, and the next pack is sound', async () => {
    const sink = openRecordSink({ storage, vault: plainVault, seams });
    const lost = put(sink, 1);
    // The folder goes: the name of the pack cannot be made durable.
    await rm(pathOf(layout.openPacks), { recursive: true });
    const first = sink.sync();
    await Promise.resolve();
    await Promise.resolve();
    put(sink, 2);
    const second = sink.sync();
    await expect(first).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    await expect(second).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    const sound = put(sink, 3);
    expect(sound.pack).not.toBe(lost.pack);
    await sink.sync();
    expect(await readBack(sound, 3)).toBe(true);
    await expect(readBack(lost, 1)).rejects.toMatchObject({ code: 'DAMAGED_BLOCK' });
    await sink.close();
  });
});

describe('closed packs', () => {
  test('without a sound footer are scanned, not changed; without a sound header listed as unreadable', async () => {
    const sink = openRecordSink({ storage, vault: plainVault, seams });
    const { pack } = put(sink, 1);
    put(sink, 2);
    await sink.close();
    const path = pathOf(layout.closedPack('blocks', pack));
    const file = await readFile(path);
    for (const at of [file.length - 5, file.length - 64 - 20]) {
      const copy = Buffer.from(file);
      copy[at]! ^= 1;
      await writeFile(path, copy);
      expect(await recordsOf(pack)).toEqual(ids(1, 2));
      expect(await readFile(path)).toEqual(copy);
    }
    await writeFile(path, Buffer.concat([Buffer.alloc(64), file.subarray(64)]));
    expect(await readClosedPack(storage, uuid, { contents: 'blocks', packId: pack }, seams.log)).toBeNull();
  });
});

describe('source', () => {
  test('says what is wrong with a record', async () => {
    const sink = openRecordSink({ storage, vault: plainVault, seams });
    const place = put(sink, 1);
    const other = put(sink, 2);
    await sink.close();
    const path = pathOf(layout.closedPack('blocks', place.pack));
    const source = openRecordSource({ storage, vault: plainVault });
    const refused = (at: RecordPlace, number = 1) => expect(source.read(at, idOf(number))).rejects;
    await refused({ ...place, offset: place.offset + 1 }).toThrow(/header is damaged/);
    await refused(other).toThrow(/another block lies there/);
    await refused({ ...place, storedLength: place.storedLength - 1, codec: 'lz4' }).toThrow(/differs from the index/);
    await refused({ ...place, rawLength: 0 }).toThrow(/impossible lengths/);
    await refused({ ...place, pack: '99'.repeat(16) }).toThrow(/pack is missing/);
    await refused({ ...place, offset: 1_000_000 }).toThrow(/header is damaged/);
    const file = await readFile(path);
    file[place.offset + 128]! ^= 1;
    await writeFile(path, file);
    await refused(place).toThrow(/payload is damaged/);
    await writeFile(path, file.subarray(0, place.offset + 130));
    await refused(place).toThrow(/cut short/);
    await source.close();
  });

  test('follows a pack that moves, and reads from more packs than it keeps open', async () => {
    const sink = openRecordSink({ storage, vault: plainVault, seams, targetBytes: 200 });
    const places: RecordPlace[] = [];
    const source = openRecordSource({ storage, vault: plainVault });
    for (let number = 0; number < 80; number += 1) places.push(put(sink, number));
    await expect(source.read(places[79]!, idOf(79))).resolves.toHaveLength(10 + 79 * 3);
    await sink.close();
    for (let round = 0; round < 3; round += 1) {
      const reads = places.map(async (place, number) => Buffer.from(await source.read(place, idOf(number))));
      for (const [number, bytes] of (await Promise.all(reads)).entries()) expect(bytes).toEqual(contentOf(number));
    }
    await source.close();
  });
});
