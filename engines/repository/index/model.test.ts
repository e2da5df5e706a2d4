/** The index against a plain list of records, over flushes, merges, crashes and damage at any moment. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { restorePointId } from '../../../schema/domain/ids.ts';
import { errorCodeOf } from '../../../schema/domain/errors.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import { seeded } from '../../../tests/fixtures/mover/disks.ts';
import { MemoryIndexDisk } from '../../../tests/fixtures/repository/memory-index-folder.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import type { PackListing } from '../pack/pack-reader.ts';
import { openIndex, type OpenIndex } from './load-index.ts';
import type { NewRecord } from './entry.ts';
import type { DamagedPlace } from './packs.ts';

const writer = restorePointId('ab'.repeat(16));
const IDS = 400;
const ids = Array.from({ length: IDS }, (_, at) => {
  const id = digestOf(Buffer.from(`id ${at}`));
  // Many of one beginning: more than a page of a segment has.
  if (at % 3 === 0) id.fill(0x77, 0, 4);
  return id;
});

/** `told`: the index was told of it, and must know it; else it may. */
type Known = NewRecord & { told: boolean };
type Pack = { records: Known[]; isClosed: boolean };
type Next = (below: number) => number;

const keyOf = ({ pack, offset }: DamagedPlace): string => `${pack} ${offset}`;

class World {
  readonly disk = new MemoryIndexDisk();
  readonly packs = new Map<string, Pack>();
  readonly trash = new Map<string, Pack>();
  readonly damaged = new Map<string, DamagedPlace>();
  readonly next: Next;
  readonly message: string;
  index!: OpenIndex;
  #packCount = 0;
  #backup: ReturnType<MemoryIndexDisk['backup']> | null = null;

  constructor(next: Next, message: string) {
    this.next = next;
    this.message = message;
  }

  async open(): Promise<void> {
    // A start finishes what packs are open, and reads what it does not know.
    for (const pack of this.packs.values()) {
      pack.isClosed = true;
      for (const record of pack.records) record.told = true;
    }
    this.index = await openIndex({
      folder: this.disk.folder(),
      shelf: {
        list: async () =>
          [...this.packs]
            .filter(([, { isClosed }]) => isClosed)
            .map(([packId]) => ({ packId, contents: 'blocks' as const })),
        read: async ({ packId }) => (
          this.next(3) === 0 && (await nextTurn()),
          listingOf(packId, this.packs.get(packId) ?? this.trash.get(packId)!)
        ),
      },
      uuid: 'u',
      generation: 0,
      seams: testSeams(),
      damaged: this.damaged.values(),
      deltaEntries: 40,
    });
  }

  newPack(): string {
    const name = `pack${this.#packCount++}`;
    this.packs.set(name, { records: [], isClosed: false });
    return name;
  }

  /** Into an open pack; now and then one that nobody tells the index of. */
  write(count = 1 + this.next(12)): void {
    const open = [...this.packs].filter(([, pack]) => !pack.isClosed);
    const name = open.length > 2 ? open[this.next(open.length)]![0] : this.newPack();
    const told = this.next(8) > 0;
    const records = Array.from({ length: count }, () => this.record(name, told));
    if (told) this.index.apply(records);
    if (this.next(4) === 0) this.packs.get(name)!.isClosed = true;
  }

  record(pack: string, told: boolean, of: { id: Uint8Array; kind: NewRecord['kind'] } = this.randomId()): Known {
    const { records } = this.packs.get(pack)!;
    const place = { pack, offset: 64 + records.length * 1000, storedLength: 10, rawLength: 20, codec: 'lz4' as const };
    const record: Known = { id: of.id, kind: of.kind, place, writer, told };
    records.push(record);
    return record;
  }

  randomId = (): { id: Uint8Array; kind: NewRecord['kind'] } => ({
    id: ids[this.next(IDS)]!,
    kind: this.next(6) === 0 ? 'page' : 'block',
  });

  forget(): void {
    const found = tryLookup(this.index, ids[this.next(IDS)]!);
    if (typeof found !== 'object' || !found) return;
    this.damaged.set(keyOf(found.place), found.place);
    this.index.forget(found.place);
  }

  /** As a collection: some living records move, in one turn the old pack is gone. */
  collect(): void {
    const closed = [...this.packs].filter(([, pack]) => pack.isClosed);
    const [name, pack] = closed[this.next(Math.max(1, closed.length))] ?? [];
    if (name === undefined || !pack) return;
    const living = pack.records.filter((record) => this.isSound(record) && this.next(2) === 0);
    if (living.length > 0) {
      const target = this.newPack();
      this.index.apply(living.map((record) => this.record(target, true, record)));
      this.packs.get(target)!.isClosed = true;
    }
    this.index.dropPacks([name, 'unknown']);
    this.packs.delete(name);
    this.trash.set(name, pack);
    // Told late: of no use any more.
    if (this.next(3) === 0) this.index.apply(pack.records);
  }

  bringBack(): void {
    const [name, pack] = [...this.trash][this.next(Math.max(1, this.trash.size))] ?? [];
    if (name === undefined || !pack) return;
    this.trash.delete(name);
    this.packs.set(name, pack);
    for (const record of pack.records) record.told = true;
    this.index.returnPack(name, pack.records);
  }

  async crash(): Promise<void> {
    this.disk.crash(this.next, this.next(2) === 0 ? 'kill' : 'power');
    if (this.next(6) === 0) this.trash.clear();
    await this.index.idle();
    await this.open();
  }

  async olderIndex(): Promise<void> {
    await this.index.close();
    if (this.#backup) this.disk.restore(this.#backup);
    this.#backup = this.disk.backup();
    await this.open();
  }

  check(count: number): void {
    const records = [...this.packs.values()].flatMap((pack) => pack.records);
    for (let i = 0; i < count; i += 1) {
      const id = ids[this.next(IDS)]!;
      this.#checkId(
        id,
        records.filter((record) => record.id === id && this.isSound(record)),
      );
    }
  }

  isSound = ({ place }: Known): boolean => !this.damaged.has(keyOf(place));

  #checkId(id: Uint8Array, copies: readonly Known[]): void {
    const found = tryLookup(this.index, id);
    if (found === 'rebuilding') return;
    const told = copies.filter((copy) => copy.told);
    if (!found) {
      expect(told, this.message).toEqual([]);
      return;
    }
    const { kind, place } = found;
    const isOne = copies.some((copy) => copy.kind === kind && keyOf(copy.place) === keyOf(place));
    expect(isOne, `${this.message}: ${kind} ${keyOf(place)}`).toBe(true);
    if (told.some((copy) => copy.kind === 'page')) expect(kind, this.message).toBe('page');
  }

  /** Every record once, in order, the one that is answered first. */
  async checkAll(): Promise<void> {
    const records = [...this.packs.values()].flatMap((pack) => pack.records).filter(this.isSound);
    const sound = new Map(records.map((record) => [keyOf(record.place), record]));
    const seen = new Set<string>();
    let last = Buffer.alloc(32);
    for await (const batch of this.index.entries()) {
      for (let at = 0; at < batch.count; at += 1) {
        const id = Buffer.from(batch.idOf(at));
        const entry = batch.read(at);
        const order = Buffer.compare(id, last);
        if (order < 0) expect.fail(`${this.message}: ${id.toString('hex')} is out of order`);
        if (order > 0) expect(this.index.lookup(id), this.message).toEqual(entry);
        expect(sound.get(keyOf(entry.place))?.kind, this.message).toBe(entry.kind);
        seen.add(keyOf(entry.place));
        last = id;
      }
    }
    const missing = records.filter(({ told, place }) => told && !seen.has(keyOf(place)));
    expect(missing, this.message).toEqual([]);
  }
}

function tryLookup(index: OpenIndex, id: Uint8Array) {
  try {
    return index.lookup(id);
  } catch (error) {
    if (errorCodeOf(error) === 'INDEX_REBUILDING') return 'rebuilding';
    throw error;
  }
}

const listingOf = (packId: string, pack: Pack): PackListing => ({
  packId,
  contents: 'blocks',
  records: pack.records.map((record) => ({
    header: {
      kind: record.kind,
      codec: record.place.codec,
      rawLength: record.place.rawLength,
      storedLength: record.place.storedLength,
      restorePointId: record.writer,
      id: record.id,
      payloadSum: Buffer.alloc(16),
    },
    offset: record.place.offset,
  })),
});

async function act(world: World, next: Next): Promise<void> {
  const what = next(100);
  if (what < 55) world.write();
  else if (what < 63) world.forget();
  else if (what < 71) world.collect();
  else if (what < 74) world.bringBack();
  else if (what < 80) await world.index.flush();
  else if (what < 84) await world.index.idle();
  else if (what < 88) world.disk.dieAfter(next(12));
  else if (what < 92) await world.crash();
  else if (what < 94) await world.olderIndex();
  else if (what < 97) world.disk.flip(next);
  else await nextTurn();
}

test('answers as a list of all records would, whatever happens', async () => {
  const { seed, next } = seeded();
  for (let round = 0; round < 5; round += 1) {
    const world = new World(next, `seed ${seed}, round ${round}`);
    await world.open();
    for (let step = 0; step < 150; step += 1) {
      await act(world, next);
      world.check(6);
    }
    // What was found damaged on the way is made up for; then all of it is looked at.
    await world.crash();
    await world.index.idle();
    world.check(IDS);
    await world.index.idle();
    await world.checkAll().catch(async (error: unknown) => {
      expect(errorCodeOf(error), world.message).toBe('INDEX_REBUILDING');
      await world.index.idle();
      await world.checkAll();
    });
    await world.index.close();
  }
});
