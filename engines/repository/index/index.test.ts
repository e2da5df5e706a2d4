import { mkdir, mkdtemp, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { repositoryId, restorePointId } from '../../../schema/domain/ids.ts';
import { errorCodeOf } from '../../../schema/domain/errors.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import { plainVault } from '../../../schema/repository/vault.ts';
import { encodeRepositoryFile, newRepositoryFile, type RepositoryFile } from '../../../schema/repository/documents.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { MAX_PACK_BYTES, MAX_RAW_BYTES } from '../../../schema/repository/limits.ts';
import { openPageSink, openRecordSink } from '../pack/record-sink.ts';
import { layout } from '../storage/layout.ts';
import { openStorage, type Storage } from '../storage/storage.ts';
import { writerTagOf } from './entry.ts';
import { loadIndex, type IndexOwner, type OpenIndex } from './load-index.ts';
import type { DamagedPlace } from './packs.ts';
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
  test('many records are found where they were put, others are not', () => {
    const index = createRecordIndex();
    const count = 40_000;
    for (let at = 0; at < count; at += 100)
      index.apply(Array.from({ length: 100 }, (_, i) => recordOf(at + i, `pack${at % 7}`)));
    for (let number = 0; number < count; number += 97) {
      const { kind, place, writer } = recordOf(number, `pack${(number - (number % 100)) % 7}`);
      expect(index.lookup(idOf(number))).toEqual({ kind, place, writer: writerTagOf(writer) });
    }
    expect(index.recordCount()).toBe(count);
    expect([index.holds(idOf(5), 20), index.holds(idOf(5), 21), index.holds(idOf(count), 20)]).toEqual([
      true,
      false,
      false,
    ]);
  });

  test('every field keeps its largest value', () => {
    const index = createRecordIndex();
    const place = {
      pack: 'p',
      offset: MAX_PACK_BYTES,
      storedLength: MAX_RAW_BYTES + 16,
      rawLength: MAX_RAW_BYTES,
      codec: 'zstd' as const,
    };
    index.apply([recordOf(1, 'p', { place, kind: 'page' })]);
    expect(index.lookup(idOf(1))).toEqual({ kind: 'page', place, writer: 0x1111_1111_1111 });
  });

  test('of two copies the first is answered, but a page before a block; each when the others are lost', () => {
    const index = createRecordIndex();
    const answered = (): string | undefined => index.lookup(idOf(1))?.place.pack;
    index.apply([recordOf(1, 'a'), recordOf(1, 'b'), recordOf(1, 'b')]);
    expect([answered(), index.recordCount()]).toEqual(['a', 2]);
    index.apply([recordOf(1, 'c', { kind: 'page' }), recordOf(1, 'd', { kind: 'page' })]);
    expect(answered()).toBe('c');
    index.dropPacks(['c', 'unknown']);
    expect(answered()).toBe('d');
    index.forget(recordOf(1, 'd').place);
    expect(answered()).toBe('a');
    index.forget(recordOf(1, 'a').place);
    expect(answered()).toBe('b');
    index.dropPacks(new Set(['b']));
    expect([answered(), index.holds(idOf(1), 20), index.forgottenCount()]).toEqual([undefined, false, 2]);
  });

  test('what is said of a pack that was dropped is not believed until it is back', () => {
    const index = createRecordIndex();
    index.apply([recordOf(1, 'a')]);
    index.dropPacks(['a']);
    index.apply([recordOf(1, 'a')]);
    expect(index.lookup(idOf(1))).toBeNull();
    index.returnPack('a', [recordOf(1, 'a'), recordOf(2, 'a')]);
    expect([index.holds(idOf(1), 20), index.holds(idOf(2), 20), index.recordCount()]).toEqual([true, true, 2]);
  });
});

describe('on disk', () => {
  let folder: string;
  let storage: Storage;
  const pathOf = (name: string): string => join(folder, name);
  let file: RepositoryFile;
  const seams = testSeams();
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'td-index-'));
    storage = openStorage({ kind: 'folder', folder });
    file = newRepositoryFile(repositoryId('main'), 'ab'.repeat(16), 'now');
    await writeFile(pathOf(layout.repositoryFile), encodeRepositoryFile(file));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const owner = (): IndexOwner => ({ storage, file, indexFolder: join(folder, 'cache'), seams });
  const opened: OpenIndex[] = [];
  afterEach(async () => {
    for (const index of opened.splice(0)) await index.close();
  });
  const load = async (change: Partial<IndexOwner> = {}, damaged: DamagedPlace[] = []): Promise<OpenIndex> => {
    const index = await loadIndex({ ...owner(), ...change }, [], damaged);
    opened.push(index);
    return index;
  };
  /** Opens, keeps and closes it. */
  const keep = async (change: Partial<IndexOwner> = {}): Promise<void> => {
    const index = await load(change);
    await index.flush();
  };
  const cached = (): Promise<string[]> => readdir(join(folder, 'cache')).catch(() => []);
  const cachedFiles = async (): Promise<Map<string, Buffer>> => {
    const files = new Map<string, Buffer>();
    for (const name of await cached()) files.set(name, await readFile(join(folder, 'cache', name)));
    return files;
  };
  /** The same from what is kept as from the packs, which are out of the way meanwhile: none is read. */
  async function fromCache(work: (index: OpenIndex) => Promise<void> | void): Promise<void> {
    const shelves = await readdir(pathOf(layout.shelfOf('blocks')));
    const paths = shelves.flatMap((shelf) => join(pathOf(layout.shelfOf('blocks')), shelf));
    for (const path of paths) for (const pack of await readdir(path)) await truncate(join(path, pack), 0);
    await work(await load());
  }

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

  test('is made from the packs when there is none, and is the same from what was kept', async () => {
    await write(0, 40);
    const pages = openPageSink({ storage, vault: plainVault, uuid: file.uuid, seams });
    const page = Buffer.alloc(32, 1);
    const rawLength = page.length;
    pages.append({ digest: digestOf(page), codec: 'none', rawLength, payload: page, restorePointId: writers[1]! });
    await pages.close();
    const first = await load();
    expect(holds(first, 0, 40)).toBe(true);
    expect(first.lookup(digestOf(page))).toMatchObject({ kind: 'page', writer: writerTagOf(writers[1]!) });
    await first.flush();
    expect(holds(first, 0, 40)).toBe(true);
    await fromCache((second) => {
      for (let number = 0; number < 40; number += 1)
        expect(second.lookup(idOf(number))).toEqual(first.lookup(idOf(number)));
      expect(second.recordCount()).toBe(41);
      expect(second.lookup(idOf(40))).toBeNull();
    });
  });

  test('little is not kept: reading it again is cheaper', async () => {
    await write(0, 40);
    await load();
    await opened.pop()!.close();
    expect(await cached()).toEqual([]);
  });

  test('an older one gets what was written since; what is not in closed packs is not kept', async () => {
    await write(0, 20);
    const first = await load();
    // Told by a lane, as if its pack had never become whole.
    first.apply([recordOf(500, '99'.repeat(16))]);
    await first.flush();
    expect(first.holds(idOf(500), 20)).toBe(true);
    await write(20, 30);
    const second = await load();
    expect(holds(second, 0, 30)).toBe(true);
    expect(second.lookup(idOf(500))).toBeNull();
  });

  test('packs that are gone are not answered, and are again when they come back', async () => {
    await write(0, 20);
    await keep();
    const gone = (await load()).lookup(idOf(3))!.place.pack;
    await rename(pathOf(layout.closedPack('blocks', gone)), join(folder, 'aside'));
    const second = await load();
    expect(second.lookup(idOf(3))).toBeNull();
    expect(second.recordCount()).toBeLessThan(20);
    await second.flush();
    await rename(join(folder, 'aside'), pathOf(layout.closedPack('blocks', gone)));
    expect(holds(await load(), 0, 20)).toBe(true);
  });

  test('a pack that cannot be read is tried again at each start', async () => {
    await write(0, 20);
    const { pack } = (await load()).lookup(idOf(3))!.place;
    const sound = await readFile(pathOf(layout.closedPack('blocks', pack)));
    await writeFile(pathOf(layout.closedPack('blocks', pack)), Buffer.alloc(500));
    const damaged = await load();
    expect(damaged.lookup(idOf(3))).toBeNull();
    await damaged.flush();
    await writeFile(pathOf(layout.closedPack('blocks', pack)), sound);
    expect(holds(await load(), 0, 20)).toBe(true);
  });

  test('a damaged place is answered neither from the packs nor from what was kept; another copy is', async () => {
    await write(0, 20);
    await write(3, 4);
    const first = await load();
    const { place } = first.lookup(idOf(3))!;
    for (const from of ['packs', 'kept']) {
      const index = await load({}, [place]);
      const { place: other } = index.lookup(idOf(3))!;
      expect(other.pack, from).not.toBe(place.pack);
      index.forget(other);
      expect(index.lookup(idOf(3)), from).toBeNull();
      await first.flush();
    }
  });

  test('damaged files, at every cut and in any byte, are made up for', async () => {
    await write(0, 40);
    await keep();
    const kept = await cachedFiles();
    expect([...kept.keys()].sort()).toEqual(['manifest', 'segment-0']);
    for (const [name, bytes] of kept) {
      for (const at of [0, 4, 9, 63, 70, 1030, bytes.length - 50, bytes.length - 33, bytes.length - 1]) {
        if (at >= bytes.length) continue;
        const copy = Buffer.from(bytes);
        copy[at]! ^= 0x40;
        await expectWhole(new Map([...kept, [name, copy]]), `${name}, byte ${at}`);
      }
      for (const length of [0, 3, 35, 37, 1024, bytes.length - 1])
        await expectWhole(new Map([...kept, [name, bytes.subarray(0, length)]]), `${name}, ${length} bytes`);
      await expectWhole(new Map([...kept].filter(([other]) => other !== name)), `no ${name}`);
    }

    /** At once, or after what was met on the way was made up for. */
    async function expectWhole(files: Map<string, Buffer>, what: string): Promise<void> {
      await rm(join(folder, 'cache'), { recursive: true });
      await mkdir(join(folder, 'cache'));
      for (const [name, bytes] of files) await writeFile(join(folder, 'cache', name), bytes);
      const index = await load();
      try {
        expect(holds(index, 0, 40), what).toBe(true);
      } catch (error) {
        expect(errorCodeOf(error), what).toBe('INDEX_REBUILDING');
        await index.idle();
        expect(holds(index, 0, 40), what).toBe(true);
      }
      expect(index.recordCount(), what).toBe(40);
      await index.idle();
    }
  });

  test('one of another repository, generation or version is not used, and goes', async () => {
    await write(0, 5);
    const changes = [{ generation: 1 }, { uuid: 'cd'.repeat(16) }];
    for (const change of changes) {
      await keep({ file: { ...file, ...change } });
      const other = await load();
      expect(holds(other, 0, 5)).toBe(true);
      expect(await cached()).toEqual([]);
    }
    await keep();
    await writeFile(join(folder, 'cache', 'index'), 'of version 1');
    await writeFile(join(folder, 'cache', 'segment-77'), 'left by a process that died');
    await load();
    expect((await cached()).sort()).toEqual(['manifest', 'segment-0']);
  });

  test('a folder that cannot be written is no misfortune', async () => {
    await write(0, 5);
    await writeFile(join(folder, 'cache'), 'a file in the way');
    const index = await load();
    await index.flush();
    expect(holds(index, 0, 5)).toBe(true);
    expect(holds(await load(), 0, 5)).toBe(true);
  });

  test('is read from end to end while it is flushed and merged', async () => {
    const index = await load();
    for (let flush = 0; flush < 9; flush += 1) {
      await write(flush * 10, flush * 10 + 10);
      await index.flush();
    }
    await write(90, 95);
    await write(0, 1);
    await index.flush();
    index.apply([recordOf(1000, 'open')]);
    const seen: Buffer[] = [];
    for await (const batch of index.entries()) {
      await index.flush();
      index.apply([recordOf(2000, 'open')]);
      for (let at = 0; at < batch.count; at += 1) seen.push(Buffer.from(batch.idOf(at)));
    }
    const expected = [...Array.from({ length: 95 }, (_, number) => idOf(number)), idOf(0), idOf(1000)];
    expect(seen).toEqual(expected.sort(Buffer.compare));
    await index.idle();
    expect((await cached()).length).toBeLessThan(6);
  });
});
