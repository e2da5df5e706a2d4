/**
 * Where each record is: id -> place. In memory: 64 bytes per record and at most 16 for its slot in an open-addressing
 * table; ids are digests, so their first bytes are the hash. A cache: rebuilt from the packs' footers.
 */
import { createEntryStore, type IndexEntry, type IndexImage, type NewRecord } from './entry-store.ts';

export type { IndexEntry, IndexImage, NewRecord } from './entry-store.ts';

/** Valid until the next one is asked for. `idOf`: a view of 32 bytes. */
export type EntryBatch = { readonly count: number; idOf(at: number): Buffer; read(at: number): IndexEntry };

export type RecordIndex = {
  lookup(id: Uint8Array): IndexEntry | null;
  /** Whether there is a record of that id and raw length; for many, cheaper than `lookup`. */
  holds(id: Uint8Array, rawLength: number): boolean;
  /** Of two copies of an id the first wins, but a page wins over a block: stored raw, it serves as both. */
  apply(records: readonly NewRecord[]): void;
  /** Forgets a record that turned out to be damaged: it will be written again when it is met again. */
  forget(id: Uint8Array): void;
  /** How often something was forgotten. Not 0: the packs are read again at the next start. */
  forgottenCount(): number;
  /** Forgets what lies in these packs. */
  dropPacks(packs: ReadonlySet<string>): void;
  /** A closed pack that was dropped is back; `records`: all of it. */
  returnPack(pack: string, records: readonly NewRecord[]): void;
  /** Every record; of the copies of an id, all in one batch, the one that `lookup` answers comes first. */
  entries(): AsyncGenerator<EntryBatch, void>;
  recordCount(): number;
  /** Upper bound of entry numbers. */
  numberLimit(): number;
  image(): IndexImage;
};

/** A power of two; never over half full. */
function tableLengthFor(entryCount: number): number {
  let length = 1024;
  while ((entryCount + 1) * 2 > length) length *= 2;
  return length;
}

export function createRecordIndex(image?: IndexImage): RecordIndex {
  const entries = createEntryStore(image);
  let liveCount = 0;
  let forgottenCount = 0;
  /** Entry number + 1, or 0. */
  let table = new Int32Array(tableLengthFor(entries.count()));

  /** Slot of the id, or the free slot where it would go. Dead entries keep their slot: the probe goes over them. */
  function slotOf(id: Uint8Array): number {
    const mask = table.length - 1;
    const hash = id[0]! | (id[1]! << 8) | (id[2]! << 16) | (id[3]! << 24);
    let slot = hash & mask;
    while (table[slot] !== 0 && !entries.hasId(table[slot]! - 1, id)) slot = (slot + 1) & mask;
    return slot;
  }

  function linkAll(): void {
    for (let number = 0; number < entries.count(); number += 1) table[slotOf(entries.idOf(number))] = number + 1;
  }

  function fitTable(): void {
    const length = tableLengthFor(entries.count());
    if (length === table.length) return;
    table = new Int32Array(length);
    linkAll();
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
    forgottenCount += 1;
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

  linkAll();
  for (let number = 0; number < entries.count(); number += 1) if (!entries.isDead(number)) liveCount += 1;

  return {
    lookup,
    holds: (id, rawLength) => {
      const number = table[slotOf(id)]! - 1;
      return number >= 0 && !entries.isDead(number) && entries.rawLengthOf(number) === rawLength;
    },
    apply: (records) => {
      for (const record of records) addOne(record);
    },
    forget,
    forgottenCount: () => forgottenCount,
    dropPacks,
    returnPack: (_pack, records) => {
      for (const record of records) addOne(record);
    },
    entries: async function* () {
      const numbers: number[] = [];
      for (let number = 0; number < entries.count(); number += 1) if (!entries.isDead(number)) numbers.push(number);
      yield { count: numbers.length, idOf: (at) => entries.idOf(numbers[at]!), read: (at) => entries.read(numbers[at]!) };
    },
    recordCount: () => liveCount,
    numberLimit: () => entries.count(),
    image: () => entries.image(),
  };
}
