/** A pack that nobody writes to, or reads, is closed after a while, by a clock that is set by hand. */
import { describe, expect, test } from 'vitest';
import { repositoryId, restorePointId } from '../../../schema/domain/ids.ts';
import type { RecordPlace, RecordSink } from '../../../schema/domain/seams.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import { encodeRepositoryFile, newRepositoryFile } from '../../../schema/repository/documents.ts';
import { plainVault } from '../../../schema/repository/vault.ts';
import { FaultyDisk } from '../../../tests/fixtures/repository/faulty-disk.ts';
import { FOLDER, storageOn } from '../../../tests/fixtures/repository/run-life.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { SetClock } from '../../../tests/fixtures/set-clock.ts';
import { aroundCalls, type StorageCall } from '../storage/around-calls.ts';
import { layout } from '../storage/layout.ts';
import { listClosedPacks } from './pack-reader.ts';
import { IDLE_PACK_MS, openRecordSink } from './record-sink.ts';
import { openRecordSource } from './record-source.ts';

const MINUTE_MS = 60_000;
const writer = restorePointId('00112233445566778899aabbccddeeff');
const contentOf = (number: number): Buffer => Buffer.alloc(100, `block ${number} `);

/** `before`: each call of the storage. */
async function openWorld(before: (call: StorageCall) => Promise<void> = async () => undefined) {
  const disk = new FaultyDisk();
  const storage = aroundCalls(storageOn(disk), {
    async: async (call, work) => {
      await before(call);
      return work();
    },
    sync: (_, work) => work(),
  });
  await storage.staging.prepare();
  await storage.staging.makeFolder(layout.openPacks);
  const file = newRepositoryFile(repositoryId('main'), 'ab'.repeat(16), 'now');
  await storage.staging.replace(layout.repositoryFile, encodeRepositoryFile(file));
  const clock = new SetClock();
  const seams = { ...testSeams(), clock };
  const sink = openRecordSink({ storage, vault: plainVault, seams, idleMs: IDLE_PACK_MS });
  const source = openRecordSource({ storage, vault: plainVault, idle: { clock, idleMs: IDLE_PACK_MS } });
  return {
    disk,
    clock,
    sink,
    source,
    /** Names of packs that somebody has open. */
    held: () => disk.openPaths().map((path) => path.slice(path.lastIndexOf('/') + 1)),
    openPacks: () => storage.staging.list(layout.openPacks),
    closedPacks: async () => (await listClosedPacks(storage)).map(({ packId }) => packId),
    read: async (place: RecordPlace, number: number) =>
      Buffer.from(await source.read(place, digestOf(contentOf(number)))).equals(contentOf(number)),
  };
}

function put(sink: RecordSink, number: number): RecordPlace {
  const payload = contentOf(number);
  const { length: rawLength } = payload;
  return sink.append({ digest: digestOf(payload), codec: 'none', rawLength, payload, restorePointId: writer });
}

test('ten minutes after the last record, not after the first; the next record begins another', async () => {
  const { clock, sink, openPacks, closedPacks, read } = await openWorld();
  const first = put(sink, 1);
  await sink.sync();
  await clock.pass(9 * MINUTE_MS);
  expect(put(sink, 2).pack).toBe(first.pack);
  await sink.sync();
  await clock.pass(9 * MINUTE_MS);
  expect([await openPacks(), await closedPacks()]).toEqual([[first.pack], []]);
  await clock.pass(MINUTE_MS);
  expect([await openPacks(), await closedPacks()]).toEqual([[], [first.pack]]);
  const next = put(sink, 3);
  await sink.sync();
  expect(next.pack).not.toBe(first.pack);
  expect([await read(first, 1), await read(next, 3)]).toEqual([true, true]);
  await clock.pass(10 * MINUTE_MS);
  expect((await closedPacks()).toSorted()).toEqual([first.pack, next.pack].toSorted());
  expect(clock.sleeperCount).toBe(0);
});

test('what was appended and not synced is durable with it', async () => {
  const { clock, sink, disk, closedPacks } = await openWorld();
  const { pack } = put(sink, 1);
  await clock.pass(10 * MINUTE_MS);
  expect(await closedPacks()).toEqual([pack]);
  await sink.sync();
  const left = [...disk.afterCrash('nothing').files().keys()];
  expect(left).toContain(`${FOLDER}/${layout.closedPack('blocks', pack)}`);
});

test('a writer that is closed waits for nothing', async () => {
  const { clock, sink } = await openWorld();
  put(sink, 1);
  expect(clock.sleeperCount).toBe(1);
  await sink.close();
  expect(clock.sleeperCount).toBe(0);
});

test('that fails: who did not sync yet hears of it at the next sync, who did has lost nothing', async () => {
  for (const isSynced of [true, false]) {
    const { clock, sink, disk, openPacks, read } = await openWorld();
    const place = put(sink, 1);
    if (isSynced) await sink.sync();
    disk.fail({ call: 'sync', what: 'EIO', path: new RegExp(place.pack), times: 1 });
    await clock.pass(10 * MINUTE_MS);
    expect(await openPacks()).toEqual([place.pack]);
    const next = put(sink, 2);
    if (isSynced) await sink.sync();
    else await expect(sink.sync()).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    const again = put(sink, 3);
    await sink.sync();
    if (isSynced) expect([await read(place, 1), await read(next, 2)]).toEqual([true, true]);
    expect(await read(again, 3)).toBe(true);
  }
});

describe('of a source', () => {
  test('each pack is closed ten minutes after its last read; a read after that opens it again', async () => {
    const { clock, sink, source, held, read } = await openWorld();
    const first = put(sink, 1);
    await sink.close();
    const other = put(sink, 2);
    await sink.close();
    expect([await read(first, 1), await read(other, 2)]).toEqual([true, true]);
    await clock.pass(9 * MINUTE_MS);
    expect(held().toSorted()).toEqual([first.pack, other.pack].toSorted());
    expect(await read(other, 2)).toBe(true);
    await clock.pass(MINUTE_MS);
    expect(held()).toEqual([other.pack]);
    await clock.pass(9 * MINUTE_MS);
    expect(held()).toEqual([]);
    expect(clock.sleeperCount).toBe(0);
    expect([await read(first, 1), await read(other, 2)]).toEqual([true, true]);
    await source.close();
    expect([held(), clock.sleeperCount]).toEqual([[], 0]);
  });

  test('one that is being read for longer is closed after that; one that is missing is not waited for', async () => {
    let letGo = (): void => undefined;
    let isSlow = false;
    const { clock, sink, held, read } = await openWorld(async ({ operation }) => {
      if (isSlow && operation === 'read') await new Promise<void>((resolve) => (letGo = resolve));
    });
    const place = put(sink, 1);
    await sink.close();
    isSlow = true;
    const reading = read(place, 1);
    await clock.pass(10 * MINUTE_MS);
    expect(held()).toEqual([place.pack]);
    letGo();
    expect(await reading).toBe(true);
    expect(held()).toEqual([]);
    await expect(read({ ...place, pack: '99'.repeat(16) }, 1)).rejects.toThrow(/pack is missing/);
    expect(clock.sleeperCount).toBe(0);
  });
});
