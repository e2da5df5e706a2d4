import { setImmediate as nextTurn } from 'node:timers/promises';
import { beforeEach, describe, expect, test } from 'vitest';
import { restorePointId } from '../../../schema/domain/ids.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import { MemoryIndexDisk } from '../../../tests/fixtures/repository/memory-index-folder.ts';
import type { NewRecord } from './entry.ts';
import { addRecords, dropPack, newState, type IndexState } from './index-state.ts';
import { createRecordIndex } from './record-index.ts';
import { SegmentStore, Stopped } from './segment-store.ts';

const writer = restorePointId('ab'.repeat(16));
const idOf = (number: number): Buffer => digestOf(Buffer.from(`id ${number}`));
const recordOf = (pack: string, number: number, kind: NewRecord['kind'] = 'block'): NewRecord => ({
  id: idOf(number),
  kind,
  place: { pack, offset: 64 + number, storedLength: 10, rawLength: 20, codec: 'lz4' },
  writer,
});
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, at) => from + at);

let state: IndexState;
let store: SegmentStore;
let disk: MemoryIndexDisk;
beforeEach(() => {
  state = newState();
  disk = new MemoryIndexDisk();
  let salt = 0;
  store = new SegmentStore(state, { folder: disk.folder(), uuid: 'u', generation: 0, newSalt: () => salt++ }, 0);
});

/** A closed pack whose records are all known. */
function addPack(pack: string, from: number, to: number): void {
  addRecords(
    state,
    range(from, to).map((number) => recordOf(pack, number)),
  );
  state.complete.add(state.packs.numberOf(pack));
}

async function spillPack(pack: string, from: number, to: number): Promise<void> {
  addPack(pack, from, to);
  await store.spill();
}

async function countEntries(): Promise<number> {
  let count = 0;
  for await (const batch of createRecordIndex(state).entries()) count += batch.count;
  return count;
}

test('closed packs leave the delta, open ones stay in it; each record is there once at any moment', async () => {
  addPack('closed', 0, 20_000);
  addRecords(state, [recordOf('open', 1)]);
  let isOver = false;
  const spilling = store.spill().finally(() => {
    isOver = true;
  });
  const counts = new Set<number>();
  let wasInBoth = false;
  while (!isOver) {
    if (state.covered.size === 0 || wasInBoth) await nextTurn();
    else {
      wasInBoth = state.delta.count > 20_000;
      counts.add(await countEntries());
      counts.add(createRecordIndex(state).recordCount());
    }
  }
  await spilling;
  expect([state.delta.count, state.segments.length, wasInBoth, ...counts]).toEqual([1, 1, true, 20_001]);
});

describe('a merge', () => {
  test('leaves out what is gone, and what was dropped while it went on counts as dead', async () => {
    await spillPack('a', 0, 100);
    await spillPack('b', 100, 200);
    await spillPack('c', 200, 300);
    dropPack(state, 'a');
    const merging = store.merge({ from: 0, to: 3 }, () => false);
    await nextTurn();
    dropPack(state, 'b');
    await merging;
    const { entryCount, deadCount } = state.segments[0]!;
    expect([state.segments.length, entryCount - deadCount, entryCount < 300]).toEqual([1, 100, true]);
    expect(await countEntries()).toBe(100);
    expect(await disk.folder().list()).toEqual(['manifest', 'segment-3']);
  });

  test('of which nothing is left leaves no segment', async () => {
    await spillPack('a', 0, 100);
    dropPack(state, 'a');
    await store.merge({ from: 0, to: 1 }, () => false);
    expect([state.segments, await disk.folder().list()]).toEqual([[], ['manifest']]);
  });

  test('of segments that turn out damaged meanwhile, or in a process that ends, is given up', async () => {
    await spillPack('a', 0, 5000);
    await spillPack('b', 5000, 10_000);
    await expect(store.merge({ from: 0, to: 2 }, () => true)).rejects.toThrow(Stopped);
    expect(state.segments.length).toBe(2);
    const merging = store.merge({ from: 0, to: 2 }, () => false);
    state.segments = [];
    await expect(merging).rejects.toThrow(Stopped);
    expect([state.segments, await disk.folder().list()]).toEqual([[], ['segment-0', 'manifest', 'segment-1']]);
  });
});

test('all copies of a record are read in one batch, the one that is answered first', async () => {
  for (const pack of ['a', 'b']) await spillPack(pack, 0, 1500);
  addRecords(
    state,
    range(0, 1500).flatMap((number) => [recordOf('c', number, 'page'), recordOf('d', number, 'page')]),
  );
  let last = '';
  let batches = 0;
  for await (const batch of createRecordIndex(state).entries()) {
    batches += 1;
    for (let at = 0; at < batch.count; at += 4) {
      const ids = range(at, at + 4).map((one) => batch.idOf(one).toString('hex'));
      expect(new Set(ids).size).toBe(1);
      expect(ids[0]! > last).toBe(true);
      last = ids[0]!;
      expect(range(at, at + 4).map((one) => batch.read(one).place.pack)).toEqual(['c', 'a', 'b', 'd']);
    }
  }
  expect(batches).toBeGreaterThan(1);
});
