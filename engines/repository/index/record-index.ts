/**
 * Where each record is: id -> place. In memory, 64 bytes per record and 4-8 per slot of an open-addressing table;
 * ids are digests, so their first bytes are the hash. A cache: rebuilt from the packs' footers.
 */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { RecordPlace } from '../../../schema/domain/seams.ts';
import { codecs } from '../../../schema/domain/states.ts';

const ENTRY_BYTES = 64;
const CHUNK_ENTRIES = 16_384;
const KINDS = ['block', 'page'] as const;
type IndexKind = (typeof KINDS)[number];

const AT = { pack: 32, offset: 36, stored: 40, raw: 44, writer: 48, codec: 52, kind: 53, flags: 54 };
const DEAD = 1;

/** `number`: the entry's, dense from 0; `writer`: restore point that wrote the record. */
export type IndexEntry = { number: number; kind: IndexKind; place: RecordPlace; writer: RestorePointId };
export type NewRecord = { id: Uint8Array; kind: IndexKind; place: RecordPlace; writer: RestorePointId };

/** A place where an index is kept between two processes: everything in it, packs and writers by number. */
export type IndexImage = { packs: string[]; writers: string[]; chunks: Buffer[]; entryCount: number };

export type RecordIndex = {
  lookup(id: Uint8Array): IndexEntry | null;
  /** In the order of `ids`, 32 bytes each. */
  lookupMany(ids: Uint8Array): (IndexEntry | null)[];
  /** Of two copies of an id the first wins; copies after it are no longer found. */
  apply(records: readonly NewRecord[]): void;
  /** Forgets what lies in a pack. */
  dropPack(pack: string): void;
  recordCount(): number;
  /** Upper bound of entry numbers. */
  numberLimit(): number;
  image(): IndexImage;
};

type Numbered = {
  of(name: string): number;
  name(number: number): string;
  names(): string[];
  find(name: string): number;
};

function createNumbering(initial: readonly string[]): Numbered {
  const names = [...initial];
  const numbers = new Map(names.map((name, number) => [name, number]));
  return {
    of: (name) => {
      const known = numbers.get(name);
      if (known !== undefined) return known;
      numbers.set(name, names.length);
      return names.push(name) - 1;
    },
    find: (name) => numbers.get(name) ?? -1,
    name: (number) => names[number] ?? '',
    names: () => names,
  };
}

export function createRecordIndex(image?: IndexImage): RecordIndex {
  const packs = createNumbering(image?.packs ?? []);
  const writers = createNumbering(image?.writers ?? []);
  const chunks = image?.chunks ?? [];
  let entryCount = image?.entryCount ?? 0;
  let liveCount = 0;
  let table = new Int32Array(1024);

  const chunkOf = (number: number): Buffer => chunks[Math.floor(number / CHUNK_ENTRIES)]!;
  const baseOf = (number: number): number => (number % CHUNK_ENTRIES) * ENTRY_BYTES;

  /** Slot of the id, or the free slot where it would go. Dead entries keep their slot: the probe goes over them. */
  function slotOf(id: Uint8Array): number {
    const mask = table.length - 1;
    const hash = id[0]! | (id[1]! << 8) | (id[2]! << 16) | (id[3]! << 24);
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const number = table[slot]! - 1;
      if (number < 0) return slot;
      const base = baseOf(number);
      if (chunkOf(number).compare(id, 0, 32, base, base + 32) === 0) return slot;
    }
  }

  function growTable(): void {
    table = new Int32Array(table.length * 2);
    relink();
  }

  function relink(): void {
    for (let number = 0; number < entryCount; number += 1) {
      const base = baseOf(number);
      table[slotOf(chunkOf(number).subarray(base, base + 32))] = number + 1;
    }
  }

  const isDead = (number: number): boolean => (chunkOf(number)[baseOf(number) + AT.flags]! & DEAD) !== 0;

  function readEntry(number: number): IndexEntry {
    const chunk = chunkOf(number);
    const base = baseOf(number);
    const place: RecordPlace = {
      pack: packs.name(chunk.readUInt32LE(base + AT.pack)),
      offset: chunk.readUInt32LE(base + AT.offset),
      storedLength: chunk.readUInt32LE(base + AT.stored),
      rawLength: chunk.readUInt32LE(base + AT.raw),
      codec: codecs[chunk[base + AT.codec]!] ?? 'none',
    };
    const writer = writers.name(chunk.readUInt32LE(base + AT.writer)) as RestorePointId;
    return { number, kind: KINDS[chunk[base + AT.kind]!] ?? 'block', place, writer };
  }

  function writeEntry(number: number, record: NewRecord): void {
    const chunk = chunkOf(number);
    const base = baseOf(number);
    chunk.set(record.id, base);
    chunk.writeUInt32LE(packs.of(record.place.pack), base + AT.pack);
    chunk.writeUInt32LE(record.place.offset, base + AT.offset);
    chunk.writeUInt32LE(record.place.storedLength, base + AT.stored);
    chunk.writeUInt32LE(record.place.rawLength, base + AT.raw);
    chunk.writeUInt32LE(writers.of(record.writer), base + AT.writer);
    chunk[base + AT.codec] = codecs.indexOf(record.place.codec);
    chunk[base + AT.kind] = KINDS.indexOf(record.kind);
    chunk[base + AT.flags] = 0;
  }

  function addOne(record: NewRecord): void {
    if ((entryCount + 1) * 2 > table.length) growTable();
    const slot = slotOf(record.id);
    const known = table[slot]! - 1;
    if (known >= 0 && !isDead(known)) return;
    liveCount += 1;
    if (known >= 0) return writeEntry(known, record);
    if (entryCount % CHUNK_ENTRIES === 0) chunks.push(Buffer.alloc(CHUNK_ENTRIES * ENTRY_BYTES));
    writeEntry(entryCount, record);
    entryCount += 1;
    table[slot] = entryCount;
  }

  function lookup(id: Uint8Array): IndexEntry | null {
    const number = table[slotOf(id)]! - 1;
    return number < 0 || isDead(number) ? null : readEntry(number);
  }

  while (entryCount * 2 > table.length) table = new Int32Array(table.length * 2);
  relink();
  for (let number = 0; number < entryCount; number += 1) if (!isDead(number)) liveCount += 1;

  return {
    lookup,
    lookupMany: (ids) =>
      Array.from({ length: ids.byteLength / 32 }, (_, at) => lookup(ids.subarray(at * 32, at * 32 + 32))),
    apply: (records) => {
      for (const record of records) addOne(record);
    },
    dropPack: (pack) => {
      const packNumber = packs.find(pack);
      for (let number = 0; packNumber >= 0 && number < entryCount; number += 1) {
        const base = baseOf(number);
        if (isDead(number) || chunkOf(number).readUInt32LE(base + AT.pack) !== packNumber) continue;
        chunkOf(number)[base + AT.flags] = DEAD;
        liveCount -= 1;
      }
    },
    recordCount: () => liveCount,
    numberLimit: () => entryCount,
    image: () => ({ packs: packs.names(), writers: writers.names(), chunks, entryCount }),
  };
}
