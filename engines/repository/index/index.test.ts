import { mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { repositoryId, restorePointId } from '../../../schema/domain/ids.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import { encodeRepositoryFile, newRepositoryFile, type RepositoryFile } from '../../../schema/repository/documents.ts';
import { plainVault } from '../../../schema/repository/vault.ts';
import { seeded } from '../../../tests/fixtures/mover/disks.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { openPageSink, openRecordSink } from '../pack/record-sink.ts';
import { layout } from '../storage/layout.ts';
import { openStorage, type Storage } from '../storage/storage.ts';
import { forgetImage, keepImage, loadIndex, type IndexOwner, type LoadedIndex } from './load-index.ts';
import { createRecordIndex, type NewRecord, type RecordIndex } from './record-index.ts';

const writers = [restorePointId('00'.repeat(16)), restorePointId('11'.repeat(16))];
const idOf = (number: number): Buffer => digestOf(Buffer.from(`id ${number}`));
const recordOf = (number: number, pack = 'p', change: Partial<NewRecord> = {}): NewRecord => ({
  id: idOf(number),
  kind: 'block',
  place: { pack, offset: 64 + number, storedLength: 10, rawLength: 20, codec: 'lz4' },
  writer: writers[number % 2]!,
  ...change,
});

describe('in memory', () => {
  test('many records are found where they were put, others are not; numbers are dense', () => {
    const index = createRecordIndex();
    const count = 40_000;
    for (let at = 0; at < count; at += 100)
      index.apply(Array.from({ length: 100 }, (_, i) => recordOf(at + i, `pack${at % 7}`)));
    const numbers = new Set<number>();
    for (let number = 0; number < count; number += 1) {
      const { number: dense, ...found } = index.lookup(idOf(number))!;
      const { id: _id, ...expected } = recordOf(number, `pack${(number - (number % 100)) % 7}`);
      expect(found).toEqual(expected);
      numbers.add(dense);
    }
    expect(numbers.size).toBe(count);
    expect(Math.max(...numbers)).toBe(count - 1);
    expect([index.numberLimit(), index.recordCount()]).toEqual([count, count]);
    expect([index.holds(idOf(5), 20), index.holds(idOf(5), 21), index.holds(idOf(count), 20)]).toEqual([
      true,
      false,
      false,
    ]);
  });

  test('of two copies the first wins, but a page over a block', () => {
    const index = createRecordIndex();
    index.apply([recordOf(1, 'a'), recordOf(1, 'b')]);
    expect(index.lookup(idOf(1))?.place.pack).toBe('a');
    index.apply([recordOf(1, 'c', { kind: 'page' }), recordOf(1, 'd'), recordOf(1, 'e', { kind: 'page' })]);
    expect(index.lookup(idOf(1))).toMatchObject({ kind: 'page', place: { pack: 'c' } });
    expect([index.recordCount(), index.numberLimit()]).toEqual([1, 1]);
  });

  test('against a map, with packs dropped and records forgotten', () => {
    const { next } = seeded();
    const index = createRecordIndex();
    const model = new Map<number, string>();
    for (let step = 0; step < 20_000; step += 1) {
      const number = next(3000);
      const pack = `p${next(20)}`;
      const what = next(1000);
      if (what < 3) {
        index.dropPacks(new Set([pack, 'unknown']));
        for (const [key, value] of model) if (value === pack) model.delete(key);
      } else if (what < 100) {
        index.forget(idOf(number));
        model.delete(number);
      } else {
        index.apply([recordOf(number, pack)]);
        if (!model.has(number)) model.set(number, pack);
      }
    }
    for (let number = 0; number < 3000; number += 1)
      expect(index.lookup(idOf(number))?.place.pack).toBe(model.get(number));
    expect(index.recordCount()).toBe(model.size);
    expect(index.forgottenCount()).toBeGreaterThan(0);
    const again = createRecordIndex(index.image());
    for (let number = 0; number < 3000; number += 1)
      expect(again.lookup(idOf(number))).toEqual(index.lookup(idOf(number)));
    expect(again.recordCount()).toBe(model.size);
  });
});

describe('on disk', () => {
  let folder: string;
  let storage: Storage;
  let file: RepositoryFile;
  const seams = testSeams();
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'td-index-'));
    storage = openStorage({ kind: 'folder', folder });
    file = newRepositoryFile(repositoryId('main'), 'ab'.repeat(16), 'now');
    await writeFile(join(folder, layout.repositoryFile), encodeRepositoryFile(file));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const owner = (): IndexOwner => ({ storage, file, indexFolder: join(folder, 'cache'), log: seams.log });
  const load = (): Promise<LoadedIndex> => loadIndex(owner(), []);
  const image = (): string => join(folder, 'cache', 'index');

  /** Packs of a few records each; numbers `from ... to - 1`. */
  async function write(from: number, to: number): Promise<void> {
    const sink = openRecordSink({ storage, vault: plainVault, seams, targetBytes: 700 });
    for (let number = from; number < to; number += 1) {
      const payload = Buffer.from(`payload ${number}`);
      sink.append({
        digest: idOf(number),
        codec: 'none',
        rawLength: payload.length,
        payload,
        restorePointId: writers[0]!,
      });
      await sink.sync();
    }
    await sink.close();
  }
  const holds = (index: RecordIndex, from: number, to: number): boolean =>
    Array.from({ length: to - from }, (_, at) => index.lookup(idOf(from + at))).every((one) => one?.kind === 'block');

  test('is rebuilt from the packs when there is none, and is the same from its image', async () => {
    await write(0, 40);
    const pages = openPageSink({ storage, vault: plainVault, uuid: file.uuid, seams });
    const page = Buffer.alloc(32, 1);
    const rawLength = page.length;
    pages.append({ digest: digestOf(page), codec: 'none', rawLength, payload: page, restorePointId: writers[1]! });
    await pages.close();
    const first = await load();
    expect(holds(first.index, 0, 40)).toBe(true);
    expect(first.index.lookup(digestOf(page))).toMatchObject({ kind: 'page', writer: writers[1] });
    await keepImage(owner(), first);
    const second = await load();
    expect(second.covered.sort()).toEqual(first.covered.sort());
    for (let number = 0; number < 40; number += 1)
      expect(second.index.lookup(idOf(number))).toEqual(first.index.lookup(idOf(number)));
    await forgetImage(owner().indexFolder);
    expect(await readdir(join(folder, 'cache'))).toEqual([]);
    expect(holds((await load()).index, 0, 40)).toBe(true);
  });

  test('an older image gets what was written since; what it knows by hearsay only is read again', async () => {
    await write(0, 20);
    const first = await load();
    // Told by a lane, as if its pack had never become whole.
    first.index.apply([recordOf(500, '99'.repeat(16))]);
    await keepImage(owner(), first);
    await write(20, 30);
    const { index } = await load();
    expect(holds(index, 0, 30)).toBe(true);
    expect(index.lookup(idOf(500))).toBeNull();
  });

  test('packs that are gone are dropped, and found again when they come back', async () => {
    await write(0, 20);
    const first = await load();
    await keepImage(owner(), first);
    const gone = first.index.lookup(idOf(3))!.place.pack;
    await rename(join(folder, layout.closedPack('blocks', gone)), join(folder, 'aside'));
    const second = await load();
    expect(second.index.lookup(idOf(3))).toBeNull();
    expect(second.index.recordCount()).toBeLessThan(20);
    await keepImage(owner(), second);
    await rename(join(folder, 'aside'), join(folder, layout.closedPack('blocks', gone)));
    expect(holds((await load()).index, 0, 20)).toBe(true);
  });

  test('a pack that cannot be read is tried again at each start', async () => {
    await write(0, 20);
    const { pack } = (await load()).index.lookup(idOf(3))!.place;
    const sound = await readFile(join(folder, layout.closedPack('blocks', pack)));
    await writeFile(join(folder, layout.closedPack('blocks', pack)), Buffer.alloc(500));
    const damaged = await load();
    expect(damaged.index.lookup(idOf(3))).toBeNull();
    await keepImage(owner(), damaged);
    await writeFile(join(folder, layout.closedPack('blocks', pack)), sound);
    expect(holds((await load()).index, 0, 20)).toBe(true);
  });

  test('a damaged image, at every cut and in any byte, is not used', async () => {
    await write(0, 20);
    await keepImage(owner(), await load());
    const bytes = await readFile(image());
    const headerBytes = 8 + bytes.readUInt32LE(0);
    const spots = [0, 4, 9, headerBytes - 1, headerBytes, headerBytes + 40, bytes.length - 1];
    for (const at of spots) {
      const copy = Buffer.from(bytes);
      copy[at]! ^= 0x40;
      await writeFile(image(), copy);
      expect(holds((await load()).index, 0, 20)).toBe(true);
    }
    for (const length of [0, 3, 8, headerBytes - 1, headerBytes, bytes.length - 1]) {
      await writeFile(image(), bytes.subarray(0, length));
      expect(holds((await load()).index, 0, 20)).toBe(true);
    }
  });

  test('an image of another repository or generation is not used', async () => {
    await write(0, 5);
    await keepImage({ ...owner(), file: { ...file, generation: 1 } }, { index: createRecordIndex(), covered: [] });
    expect(holds((await load()).index, 0, 5)).toBe(true);
    const foreign = createRecordIndex();
    foreign.apply([recordOf(500, 'x')]);
    await keepImage({ ...owner(), file: { ...file, uuid: 'cd'.repeat(16) } }, { index: foreign, covered: ['x'] });
    expect((await load()).index.lookup(idOf(500))).toBeNull();
  });

  test('an image that cannot be written is no misfortune', async () => {
    await write(0, 5);
    await writeFile(join(folder, 'cache'), 'a file in the way');
    const loaded = await load();
    await keepImage(owner(), loaded);
    expect(holds((await load()).index, 0, 5)).toBe(true);
  });
});
