/** A pack that nobody writes to is closed after a while, by a clock that is set by hand. */
import { expect, test } from 'vitest';
import { repositoryId, restorePointId } from '../../../schema/domain/ids.ts';
import type { Clock, RecordPlace, RecordSink } from '../../../schema/domain/seams.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import { encodeRepositoryFile, newRepositoryFile } from '../../../schema/repository/documents.ts';
import { plainVault } from '../../../schema/repository/vault.ts';
import { FaultyDisk } from '../../../tests/fixtures/repository/faulty-disk.ts';
import { FOLDER, storageOn } from '../../../tests/fixtures/repository/run-life.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { layout } from '../storage/layout.ts';
import { listClosedPacks } from './pack-reader.ts';
import { IDLE_PACK_MS, openRecordSink } from './record-sink.ts';
import { openRecordSource } from './record-source.ts';

const MINUTE_MS = 60_000;
const writer = restorePointId('00112233445566778899aabbccddeeff');
const contentOf = (number: number): Buffer => Buffer.alloc(100, `block ${number} `);

/** Sleepers wake when the time is set past their end. */
class SetClock implements Clock {
  #nowMs = 0;
  #sleepers: { untilMs: number; wake: () => void }[] = [];

  now = (): number => this.#nowMs;
  monotonic = (): number => this.#nowMs;
  sleep = (durationMs: number, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      const sleeper = { untilMs: this.#nowMs + durationMs, wake: resolve };
      this.#sleepers.push(sleeper);
      signal?.addEventListener('abort', () => {
        this.#sleepers = this.#sleepers.filter((one) => one !== sleeper);
        reject(signal.reason as Error);
      });
    });

  get sleeperCount(): number {
    return this.#sleepers.length;
  }

  /** And lets what wakes up do all it does. */
  async pass(durationMs: number): Promise<void> {
    this.#nowMs += durationMs;
    const due = this.#sleepers.filter(({ untilMs }) => untilMs <= this.#nowMs);
    this.#sleepers = this.#sleepers.filter((one) => !due.includes(one));
    for (const { wake } of due) wake();
    for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  }
}

async function openWorld() {
  const disk = new FaultyDisk();
  const storage = storageOn(disk);
  await storage.staging.prepare();
  await storage.staging.makeFolder(layout.openPacks);
  const file = newRepositoryFile(repositoryId('main'), 'ab'.repeat(16), 'now');
  await storage.staging.replace(layout.repositoryFile, encodeRepositoryFile(file));
  const clock = new SetClock();
  const seams = { ...testSeams(), clock };
  const sink = openRecordSink({ storage, vault: plainVault, seams, idleMs: IDLE_PACK_MS });
  const source = openRecordSource({ storage, vault: plainVault });
  return {
    disk,
    clock,
    sink,
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
