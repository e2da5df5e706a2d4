/** Packs that a process left open, in any state: what was durable in them is kept. */
import { beforeEach, describe, expect, test } from 'vitest';
import { repositoryId, type RestorePointId, restorePointId } from '../../../schema/domain/ids.ts';
import type { RecordPlace, RecordSink, Seams } from '../../../schema/domain/seams.ts';
import { plainVault } from '../../../schema/repository/vault.ts';
import { digestOf, sumOf } from '../../../schema/repository/digest.ts';
import { encodeRepositoryFile, newRepositoryFile } from '../../../schema/repository/documents.ts';
import { encodeRecordHeader } from '../../../schema/repository/record.ts';
import { FaultyDisk } from '../../../tests/fixtures/repository/faulty-disk.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { layout } from '../storage/layout.ts';
import { openStorage, type Storage } from '../storage/storage.ts';
import { listClosedPacks, readClosedPack, recoverOpenPacks } from './pack-reader.ts';
import { createPackWriter } from './pack-writer.ts';
import { openRecordSink } from './record-sink.ts';

const uuid = 'ab'.repeat(16);
const seams: Seams = testSeams();
const writer = restorePointId('00112233445566778899aabbccddeeff');
const stranger = restorePointId('ffeeddccbbaa99887766554433221100');
const FOLDER = '/r';
let disk: FaultyDisk;
let storage: Storage;

const openOn = (on: FaultyDisk): Storage => openStorage({ kind: 'folder', folder: FOLDER }, on.fileSystem);
async function freshRepository(): Promise<void> {
  disk = new FaultyDisk();
  storage = openOn(disk);
  await storage.staging.prepare();
  await storage.staging.makeFolder(layout.openPacks);
  await storage.staging.putIfAbsent(
    layout.repositoryFile,
    encodeRepositoryFile(newRepositoryFile(repositoryId('main'), uuid, 'now')),
  );
}
beforeEach(freshRepository);

const contentOf = (number: number): Buffer => Buffer.alloc(10 + number * 3, `block ${number} `);
const idOf = (number: number): Buffer => digestOf(contentOf(number));
const ids = (...numbers: number[]): string[] => numbers.map((number) => idOf(number).toString('hex')).sort();
function put(sink: RecordSink, payload: Buffer, by: RestorePointId = writer): RecordPlace {
  return sink.append({
    digest: digestOf(payload),
    codec: 'none',
    rawLength: payload.length,
    payload,
    restorePointId: by,
  });
}

const fileAt = (name: string): Buffer | undefined => disk.files().get(`${FOLDER}/${name}`);
const recover = () => recoverOpenPacks(storage, uuid, seams.log);
async function closedIds(): Promise<string[]> {
  return (await listClosedPacks(storage)).map((name) => name.packId);
}
/** What the footer lists. */
async function recordsOf(packId: string): Promise<string[]> {
  const listing = await readClosedPack(storage, uuid, { contents: 'blocks', packId }, seams.log);
  return listing!.records.map(({ header }) => Buffer.from(header.id).toString('hex')).sort();
}

type Torn = { file: Buffer; places: RecordPlace[]; packId: string; disk: FaultyDisk };

/** One open pack of these payloads, synced, as a process leaves it that is killed. */
async function tornPack(payloads: Buffer[], by?: RestorePointId): Promise<Torn> {
  const sink = openRecordSink({ storage, vault: plainVault, seams });
  const places = payloads.map((payload) => put(sink, payload, by));
  await sink.sync();
  const packId = places[0]!.pack;
  return { file: fileAt(layout.openPack(packId))!, places, packId, disk };
}
const threeRecords = (): Promise<Torn> => tornPack([0, 1, 2].map(contentOf));
const endOf = ({ offset, storedLength }: RecordPlace): number => offset + 128 + storedLength;

/** As if the pack had been left like this instead. */
function leave({ packId, disk: killed }: Torn, content: Buffer): void {
  disk = killed.afterKill();
  storage = openOn(disk);
  disk.tamper(`${FOLDER}/${layout.openPack(packId)}`, () => content);
}
const flipped = (file: Buffer, ...offsets: number[]): Buffer => {
  const copy = Buffer.from(file);
  for (const at of offsets) copy[at]! ^= 1;
  return copy;
};

describe('an open pack', () => {
  test('at every cut: the sound records are kept and closed', async () => {
    const torn = await threeRecords();
    const { file, packId } = torn;
    const ends = torn.places.map(endOf);
    for (let length = 0; length <= file.length; length += 1) {
      leave(torn, file.subarray(0, length));
      expect(await recover()).toEqual([]);
      expect(fileAt(layout.openPack(packId))).toBeUndefined();
      const whole = ends.filter((end) => end <= length).length;
      expect(await closedIds()).toEqual(whole > 0 ? [packId] : []);
      if (whole === 0) continue;
      expect(await recordsOf(packId)).toEqual(ids(...[0, 1, 2].slice(0, whole)));
      expect(fileAt(layout.closedPack('blocks', packId))!.length).toBe(ends[whole - 1]! + whole * 136 + 64);
    }
  });

  test('with a footer that was cut, at every cut, gets it again', async () => {
    const torn = await threeRecords();
    await recover();
    const closed = fileAt(layout.closedPack('blocks', torn.packId))!;
    for (let length = torn.file.length; length <= closed.length; length += 1) {
      leave({ ...torn, disk: await undone(torn) }, closed.subarray(0, length));
      await recover();
      expect(fileAt(layout.closedPack('blocks', torn.packId))).toEqual(closed);
    }
  });

  /** The disk as it was before the pack was closed. */
  async function undone({ packId, file }: Torn): Promise<FaultyDisk> {
    const before = disk.afterKill();
    const { staging, store } = openOn(before);
    await store.remove(layout.closedPack('blocks', packId));
    await staging.replace(layout.openPack(packId), file.toString('latin1'));
    return before;
  }

  test('of which a payload or a header is damaged, in any byte, loses that record only', async () => {
    const torn = await threeRecords();
    const { file, packId, places } = torn;
    for (let at = 64; at < file.length; at += 1) {
      leave(torn, flipped(file, at));
      await recover();
      const hit = places.findIndex((place) => at < endOf(place));
      // Nothing tells whose records those are when the first header is gone.
      const expected = at < 64 + 128 ? [] : [0, 1, 2].filter((number) => number !== hit);
      expect(await closedIds()).toEqual(expected.length > 0 ? [packId] : []);
      if (expected.length === 0) continue;
      expect(await recordsOf(packId)).toEqual(ids(...expected));
      const closed = fileAt(layout.closedPack('blocks', packId))!;
      const end = endOf(places[expected.at(-1)!]!);
      expect(closed.subarray(0, end)).toEqual(flipped(file, at).subarray(0, end));
    }
  });

  test('with a damaged first header: the rest is known by its restore point, open, aborted or sealed', async () => {
    const torn = await threeRecords();
    for (const name of [
      layout.head(writer),
      layout.tombstone(writer),
      layout.manifest(plainVault.nameOf('vm'), writer),
    ]) {
      leave(torn, flipped(torn.file, 70));
      await storage.staging.replace(name, 'x');
      await recover();
      expect(await recordsOf(torn.packId)).toEqual(ids(1, 2));
    }
  });

  test('with many damaged headers, and records far behind them, across the borders of what is read at once', async () => {
    const big = Buffer.alloc(1024 * 1024 - 300, 'x');
    const payloads = [contentOf(0), big, contentOf(1), contentOf(2), ...[3, 4, 5, 6].map(contentOf)];
    const torn = await tornPack(payloads);
    const { places } = torn;
    // The magic of the third record lies at any place around 1 MiB behind where the search begins.
    for (let shift = 0; shift < 8; shift += 1) {
      const header = places[1]!.offset;
      const gone = flipped(torn.file, header + 5, places[3]!.offset + 9, places[6]!.offset + 127);
      const gap = 1024 * 1024 - 4 + shift - (places[2]!.offset - header - 1);
      leave(torn, Buffer.concat([gone.subarray(0, header + 128), Buffer.alloc(gap), gone.subarray(header + 128)]));
      await recover();
      expect(await recordsOf(torn.packId)).toEqual(ids(0, 1, 3, 4, 6));
    }
  });

  test('whose payload holds records of somebody else takes none of them for its own', async () => {
    const inner = (await tornPack([contentOf(7), contentOf(8)], stranger)).file;
    await freshRepository();
    const forged = Buffer.concat([forgedRecord(), contentOf(1)]);
    const torn = await tornPack([contentOf(0), inner, contentOf(2), forged, contentOf(4)]);
    leave(torn, flipped(torn.file, torn.places[1]!.offset, torn.places[3]!.offset));
    await recover();
    expect(await recordsOf(torn.packId)).toEqual(ids(0, 2, 4));
  });

  /** A header that passes another payload off as block 9. */
  function forgedRecord(): Buffer {
    const { length: storedLength } = contentOf(1);
    const payloadSum = sumOf(contentOf(1));
    const of = { id: idOf(9), rawLength: storedLength, storedLength, payloadSum, restorePointId: stranger };
    return encodeRecordHeader({ ...of, kind: 'block', codec: 'none' });
  }

  test('of which only the file header is damaged is not thrown away', async () => {
    const torn = await threeRecords();
    leave(torn, flipped(torn.file, 30));
    await recover();
    expect(fileAt(layout.openPack(torn.packId))).toEqual(flipped(torn.file, 30));
  });

  test('of another repository is left alone', async () => {
    const { packId, file } = await threeRecords();
    await recoverOpenPacks(storage, 'cd'.repeat(16), seams.log);
    expect(fileAt(layout.openPack(packId))).toEqual(file);
  });

  test('of pages goes to their own shelf', async () => {
    const { file, places } = await tornPack([contentOf(1)]);
    const pack = createPackWriter(storage, 'pages', uuid, '77'.repeat(16));
    pack.append(file.subarray(64, 192), file.subarray(192, endOf(places[0]!)));
    await pack.sync();
    await recover();
    expect(fileAt(layout.closedPack('pages', '77'.repeat(16)))).toBeDefined();
  });

  test('that was whole but never synced is synced before anybody relies on it', async () => {
    const sink = openRecordSink({ storage, vault: plainVault, seams });
    const { pack } = put(sink, contentOf(1));
    let killed: FaultyDisk | null = null;
    disk.onPoint((call, path) => {
      // The footer is written; its sync has not begun to have an effect.
      if (call === 'sync' && path.endsWith(pack)) killed ??= disk.afterKill();
    });
    await sink.close();
    disk = killed!;
    storage = openOn(disk);
    await recover();
    disk = disk.afterCrash('nothing');
    storage = openOn(disk);
    expect(await recordsOf(pack)).toEqual(ids(1));
  });

  test('that cannot be closed for lack of space is durable all the same', async () => {
    const sink = openRecordSink({ storage, vault: plainVault, seams });
    const { pack } = put(sink, contentOf(1));
    disk = disk.afterKill();
    disk.setRoom(0);
    storage = openOn(disk);
    expect(await recover()).toMatchObject([{ packId: pack, records: [{ offset: 64 }] }]);
    disk = disk.afterCrash('nothing');
    storage = openOn(disk);
    disk.setRoom(9999);
    expect(await recover()).toEqual([]);
    expect(await recordsOf(pack)).toEqual(ids(1));
  });
});

test('after a failed sync the file is cut back to what was durable: what was lost is not taken for sound', async () => {
  const sink = openRecordSink({ storage, vault: plainVault, seams });
  const kept = put(sink, contentOf(0));
  await sink.sync();
  const lost = put(sink, contentOf(1));
  expect(lost.pack).toBe(kept.pack);
  disk.fail({ call: 'sync', what: 'EIO', times: 1 });
  await expect(sink.sync()).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
  expect(put(sink, contentOf(2)).pack).not.toBe(kept.pack);
  // Killed, not cut off: what the medium never got could still be read from memory.
  disk = disk.afterKill();
  storage = openOn(disk);
  await recover();
  expect(await recordsOf(kept.pack)).toEqual(ids(0));
});
