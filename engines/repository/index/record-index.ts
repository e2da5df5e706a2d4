/**
 * Where each record is: id -> place. In memory: 64 bytes per record and at most 16 for its slot in an open-addressing
 * table; ids are digests, so their first bytes are the hash. A cache: rebuilt from the packs' footers.
 */
import { createEntryStore, type IndexEntry, type IndexImage, type NewRecord } from './entry-store.ts';

export type { IndexEntry, IndexImage, NewRecord } from './entry-store.ts';

export type RecordIndex = {
  lookup(id: Uint8Array): IndexEntry | null;
  /** In the order of `ids`, 32 bytes each. */
  lookupMany(ids: Uint8Array): (IndexEntry | null)[];
  /** Of two copies of an id the first wins, but a page wins over a block: stored raw, it serves as both. */
  apply(records: readonly NewRecord[]): void;
  /** Forgets a record that turned out to be damaged: it will be written again when it is met again. */
  forget(id: Uint8Array): void;
  /** Whether anything was forgotten: then the packs are read again at the next start. */
  hasForgotten(): boolean;
  /** Forgets what lies in these packs. */
  dropPacks(packs: ReadonlySet<string>): void;
  recordCount(): number;
  /** Upper bound of entry numbers. */
  numberLimit(): number;
  image(): IndexImage;
};

export function createRecordIndex(image?: IndexImage): RecordIndex {
  const entries = createEntryStore(image);
  let liveCount = 0;
  let forgotten = false;
  /** Entry number + 1, or 0. Never over half full; a power of two long. */
  let table = new Int32Array(1024);

  /** Slot of the id, or the free slot where it would go. Dead entries keep their slot: the probe goes over them. */
  function slotOf(id: Uint8Array): number {
    const mask = table.length - 1;
    const hash = id[0]! | (id[1]! << 8) | (id[2]! << 16) | (id[3]! << 24);
    let slot = hash & mask;
    while (table[slot] !== 0 && !entries.hasId(table[slot]! - 1, id)) slot = (slot + 1) & mask;
    return slot;
  }

  function fitTable(): void {
    let length = table.length;
    while ((entries.count() + 1) * 2 > length) length *= 2;
    if (length === table.length) return;
    table = new Int32Array(length);
    for (let number = 0; number < entries.count(); number += 1) table[slotOf(entries.idOf(number))] = number + 1;
  }

  function addOne(record: NewRecord): void {
    fitTable();
    const slot = slotOf(record.id);
    const known = table[slot]! - 1;
    const isLive = known >= 0 && !entries.isDead(known);
    if (isLive && !(record.kind === 'page' && entries.kindOf(known) === 'block')) return;
    if (!isLive) liveCount += 1;
    if (known >= 0) entries.write(known, record);
    else table[slot] = entries.append(record) + 1;
  }

  function lookup(id: Uint8Array): IndexEntry | null {
    const number = table[slotOf(id)]! - 1;
    return number < 0 || entries.isDead(number) ? null : entries.read(number);
  }

  function forget(id: Uint8Array): void {
    const number = table[slotOf(id)]! - 1;
    if (number < 0 || entries.isDead(number)) return;
    entries.markDead(number);
    liveCount -= 1;
    forgotten = true;
  }

  function dropPacks(packs: ReadonlySet<string>): void {
    const numbers = new Set([...packs].map((pack) => entries.packNumber(pack)).filter((number) => number >= 0));
    if (numbers.size === 0) return;
    for (let number = 0; number < entries.count(); number += 1) {
      if (entries.isDead(number) || !numbers.has(entries.packNumberOf(number))) continue;
      entries.markDead(number);
      liveCount -= 1;
    }
  }

  for (let number = 0; number < entries.count(); number += 1) if (!entries.isDead(number)) liveCount += 1;
  if (entries.count() > 0) {
    // Entries of an image small enough for the first table are linked here, the others by growing.
    fitTable();
    for (let number = 0; number < entries.count(); number += 1) table[slotOf(entries.idOf(number))] = number + 1;
  }

  return {
    lookup,
    lookupMany: (ids) =>
      Array.from({ length: ids.byteLength / 32 }, (_, at) => lookup(ids.subarray(at * 32, at * 32 + 32))),
    apply: (records) => {
      for (const record of records) addOne(record);
    },
    forget,
    hasForgotten: () => forgotten,
    dropPacks,
    recordCount: () => liveCount,
    numberLimit: () => entries.count(),
    image: () => entries.image(),
  };
}
