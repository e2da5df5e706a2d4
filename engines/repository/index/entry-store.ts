/** The index's entries: 64 bytes each, numbered from 0, in chunks of 1 MiB. Packs and writers by number. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { RecordPlace } from '../../../schema/domain/seams.ts';
import { codecs } from '../../../schema/domain/states.ts';

export const ENTRY_BYTES = 64;
export const CHUNK_ENTRIES = 16_384;
const KINDS = ['block', 'page'] as const;
export type IndexKind = (typeof KINDS)[number];

const AT = { pack: 32, offset: 36, stored: 40, raw: 44, writer: 48, codec: 52, kind: 53, flags: 54 };
const DEAD = 1;

/** `number`: the entry's, dense from 0; `writer`: restore point that wrote the record. */
export type IndexEntry = { number: number; kind: IndexKind; place: RecordPlace; writer: RestorePointId };
export type NewRecord = { id: Uint8Array; kind: IndexKind; place: RecordPlace; writer: RestorePointId };
/** What is kept of an index between two processes. */
export type IndexImage = { packs: string[]; writers: string[]; chunks: Buffer[]; entryCount: number };

function createNumbering(names: string[]) {
  const numbers = new Map(names.map((name, number) => [name, number]));
  return {
    of: (name: string): number => {
      const known = numbers.get(name);
      if (known !== undefined) return known;
      numbers.set(name, names.length);
      return names.push(name) - 1;
    },
    find: (name: string): number => numbers.get(name) ?? -1,
    name: (number: number): string => names[number] ?? '',
    names,
  };
}

export type EntryStore = ReturnType<typeof createEntryStore>;

export function createEntryStore(image?: IndexImage) {
  const packs = createNumbering(image?.packs ?? []);
  const writers = createNumbering(image?.writers ?? []);
  const chunks = image?.chunks ?? [];
  let entryCount = image?.entryCount ?? 0;
  const chunkOf = (number: number): Buffer => chunks[Math.floor(number / CHUNK_ENTRIES)]!;
  const baseOf = (number: number): number => (number % CHUNK_ENTRIES) * ENTRY_BYTES;

  function write(number: number, record: NewRecord): void {
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

  return {
    count: (): number => entryCount,
    /** A view of the entry's 32 bytes. */
    idOf: (number: number): Buffer => chunkOf(number).subarray(baseOf(number), baseOf(number) + 32),
    hasId: (number: number, id: Uint8Array): boolean => {
      const chunk = chunkOf(number);
      const base = baseOf(number);
      // The table is probed by the first bytes; another one tells most neighbours apart without a call.
      return chunk[base + 31] === id[31] && chunk.compare(id, 0, 32, base, base + 32) === 0;
    },
    rawLengthOf: (number: number): number => chunkOf(number).readUInt32LE(baseOf(number) + AT.raw),
    isDead: (number: number): boolean => (chunkOf(number)[baseOf(number) + AT.flags]! & DEAD) !== 0,
    markDead: (number: number): void => void (chunkOf(number)[baseOf(number) + AT.flags] = DEAD),
    kindOf: (number: number): IndexKind => KINDS[chunkOf(number)[baseOf(number) + AT.kind]!] ?? 'block',
    packNumber: (pack: string): number => packs.find(pack),
    packNumberOf: (number: number): number => chunkOf(number).readUInt32LE(baseOf(number) + AT.pack),
    write,
    append: (record: NewRecord): number => {
      if (entryCount === chunks.length * CHUNK_ENTRIES) chunks.push(Buffer.alloc(CHUNK_ENTRIES * ENTRY_BYTES));
      write(entryCount, record);
      return entryCount++;
    },
    read: (number: number): IndexEntry => {
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
    },
    image: (): IndexImage => ({ packs: packs.names, writers: writers.names, chunks, entryCount }),
  };
}
