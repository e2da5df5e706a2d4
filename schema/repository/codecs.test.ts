import { readFileSync, writeFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { seeded } from '../../tests/fixtures/mover/disks.ts';
import { restorePointId } from '../domain/ids.ts';
import { digestOf, sumOf } from './digest.ts';
import {
  decodeLedgerHeader,
  decodeLedgerRecord,
  encodeLedgerRecord,
  type LedgerEntry,
  type LedgerRecord,
} from './ledger.ts';
import { heightOf, isPageLength, leafCountOf } from './map-page.ts';
import {
  decodeFooterEntries,
  decodePackHeader,
  decodeTrailer,
  encodeFooter,
  encodePackHeader,
  type PackHeader,
} from './pack.ts';
import { decodeRecordHeader, encodeRecordHeader, type RecordHeader } from './record.ts';

const payload = Buffer.from('sixteen bytes ok');
const record: RecordHeader = {
  kind: 'block',
  codec: 'zstd',
  rawLength: 1_048_576,
  storedLength: payload.length,
  restorePointId: restorePointId('00112233445566778899aabbccddeeff'),
  id: digestOf(Buffer.from('the block')),
  payloadSum: sumOf(payload),
};
const page: RecordHeader = { ...record, kind: 'page', codec: 'none', rawLength: 32, storedLength: 32 };
const pack: PackHeader = { contents: 'blocks', uuid: 'ab'.repeat(16), packId: '0f'.repeat(16) };
const window: LedgerRecord = {
  kind: 'window',
  disk: 3,
  binding: 2,
  fence: 7,
  firstWindow: 5,
  windowCount: 1,
  declared: { notReadBytes: 1, unallocatedBytes: 2_097_152, zeroBytes: 3_145_728, dataBytes: 1_048_576 },
  unchanged: { notReadBytes: 1, unallocatedBytes: 0, zeroBytes: 1_048_576, dataBytes: 0 },
  entries: [
    { block: 0, kind: 'data', digest: digestOf(Buffer.from('a')) },
    { block: 1, kind: 'zero' },
    { block: 2, kind: 'zero' },
    { block: 4, kind: 'unallocated' },
    { block: 5, kind: 'unallocated' },
    { block: 255, kind: 'data', digest: digestOf(Buffer.from('b')) },
  ],
};
const untouched: LedgerRecord = { ...window, kind: 'untouched', firstWindow: 6, windowCount: 1000, entries: [] };

/** A whole pack of two records. */
function packFile(): Buffer {
  const first = encodeRecordHeader(record);
  const second = encodeRecordHeader(page);
  const records = Buffer.concat([encodePackHeader(pack), first, payload, second, Buffer.alloc(32, 1)]);
  const entries = [
    { header: first, offset: 64 },
    { header: second, offset: 64 + 128 + 16 },
  ];
  return Buffer.concat([records, encodeFooter(entries, records.length)]);
}

test.each([
  ['record', () => encodeRecordHeader(record)],
  ['pack', packFile],
  ['ledger', () => Buffer.concat([encodeLedgerRecord(window), encodeLedgerRecord(untouched)])],
])('golden bytes of a %s', (name, encode) => {
  const file = new URL(`./golden/${name}.hex`, import.meta.url);
  const hex = encode()
    .toString('hex')
    .replace(/.{1,64}/g, '$&\n');
  if (process.env['TIDEMARK_WRITE_GOLDEN']) writeFileSync(file, hex);
  expect(hex).toBe(readFileSync(file, 'utf8'));
});

/** A copy with some bytes replaced and the crc at `crcAt` made right again. */
function spoilt(bytes: Buffer, at: number, value: number[], crcAt: number): Buffer {
  const copy = Buffer.from(bytes);
  copy.set(value, at);
  copy.writeUInt32LE(crc32(copy.subarray(0, crcAt)), crcAt);
  return copy;
}

const uint32 = (value: number): number[] => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return [...bytes];
};

const uint64 = (value: number | bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};

describe('record header', () => {
  const bytes = encodeRecordHeader(record);

  test('comes back as it was', () => {
    expect(decodeRecordHeader(bytes)).toEqual(record);
    expect(decodeRecordHeader(encodeRecordHeader(page))).toEqual(page);
    expect(decodeRecordHeader(spoilt(bytes, 7, [0], 124))).toEqual(record);
  });

  test.each([
    ['magic', 0, [0]],
    ['version', 4, [2]],
    ['kind 0', 5, [0]],
    ['kind 4', 5, [4]],
    ['codec', 6, [3]],
    ['flags', 7, [1]],
    ['key id', 8, uint32(1)],
    ['raw length 0', 12, uint32(0)],
    ['raw length over 4 MiB', 12, uint32(4_194_305)],
    ['stored length 0', 16, uint32(0)],
    ['stored length over raw length + 16', 16, uint32(1_048_576 + 17)],
    ['stored length of what is not compressed', 6, [0]],
    ['cipher', 20, [1]],
    ['zeros behind the cipher', 23, [1]],
    ['salt', 95, [1]],
    ['zeros at the end', 123, [1]],
  ])('is refused with another %s', (_, at, value) => {
    expect(decodeRecordHeader(spoilt(bytes, at, value, 124))).toBeNull();
  });

  test('is refused when any bit is wrong, or when it is cut', () => {
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const copy = Buffer.from(bytes);
      copy[bit >> 3]! ^= 1 << (bit & 7);
      expect(decodeRecordHeader(copy)).toBeNull();
    }
    expect(decodeRecordHeader(bytes.subarray(0, 127))).toBeNull();
  });
});

describe('pack', () => {
  const file = packFile();
  const trailer = (bytes: Buffer) => decodeTrailer(bytes.subarray(bytes.length - 64), bytes.length);

  test('header and footer come back as they were, records sorted by id', () => {
    expect(decodePackHeader(file)).toEqual(pack);
    const end = trailer(file)!;
    expect(end).toMatchObject({ count: 2, entriesOffset: 64 + 128 + 16 + 128 + 32 });
    const records = decodeFooterEntries(file.subarray(end.entriesOffset, file.length - 64), end)!;
    expect(records.map(({ header, offset }) => [header.kind, offset])).toEqual([
      ['block', 64],
      ['page', 208],
    ]);
  });

  test.each([
    ['magic', 0, [0]],
    ['version', 4, [2]],
    ['contents 0', 5, [0]],
    ['contents 3', 5, [3]],
    ['zeros', 6, [1]],
    ['zeros at the end', 59, [1]],
  ])('header is refused with another %s', (_, at, value) => {
    expect(decodePackHeader(spoilt(file.subarray(0, 64), at, value, 60))).toBeNull();
  });

  test.each([
    ['magic', 0, [0]],
    ['version', 4, [2]],
    ['count that does not fit the file', 8, uint32(3)],
    ['count over the limit', 8, uint32(65_537)],
    ['offset of the entries', 16, uint32(65)],
    ['zeros', 5, [1]],
    ['zeros behind the count', 15, [1]],
    ['zeros at the end', 59, [1]],
    ['offset over 4 GiB', 20, uint32(1)],
  ])('trailer is refused with another %s', (_, at, value) => {
    expect(decodeTrailer(spoilt(file.subarray(file.length - 64), at, value, 60), file.length)).toBeNull();
  });

  test('trailer is refused when its entries would begin in the header', () => {
    const footer = encodeFooter([], 63);
    expect(decodeTrailer(footer, 63 + footer.length)).toBeNull();
    expect(decodeTrailer(encodeFooter([], 64), 64 + footer.length)).not.toBeNull();
  });

  test('entries are refused in another order than by id and offset, or twice', () => {
    const header = encodeRecordHeader(record);
    const other = encodeRecordHeader({ ...record, id: digestOf(Buffer.from('another')) });
    const sorted = [header, other].sort((a, b) => a.compare(b, 40, 72, 40, 72));
    const decodes = (first: [Buffer, number], second: [Buffer, number]): boolean => {
      const entries = Buffer.concat([first, second].map(([of, offset]) => Buffer.concat([of, uint64(offset)])));
      return decodeFooterEntries(entries, { count: 2, entriesOffset: 4096, sum: sumOf(entries) }) !== null;
    };
    expect(decodes([sorted[0]!, 500], [sorted[1]!, 64])).toBe(true);
    expect(decodes([sorted[1]!, 64], [sorted[0]!, 500])).toBe(false);
    expect(decodes([header, 64], [header, 208])).toBe(true);
    expect(decodes([header, 208], [header, 64])).toBe(false);
    expect(decodes([header, 64], [header, 64])).toBe(false);
  });

  test('entries are refused when a bit is wrong, or when an offset leads out of the records', () => {
    const end = trailer(file)!;
    const entries = file.subarray(end.entriesOffset, file.length - 64);
    for (let at = 0; at < entries.length; at += 7) {
      const copy = Buffer.from(entries);
      copy[at]! ^= 1;
      expect(decodeFooterEntries(copy, end)).toBeNull();
    }
    for (const offset of [0, 63, end.entriesOffset - 100]) {
      const header = encodeRecordHeader(record);
      const footer = encodeFooter([{ header, offset }], end.entriesOffset);
      const sum = decodeTrailer(footer.subarray(136), end.entriesOffset + footer.length)!;
      expect(decodeFooterEntries(footer.subarray(0, 136), sum)).toBeNull();
    }
  });
});

describe('ledger frame', () => {
  test('comes back as it was', () => {
    for (const one of [window, untouched]) expect(decodeLedgerRecord(encodeLedgerRecord(one))).toEqual(one);
  });

  test('a window of 256 blocks of any kinds fits and comes back', () => {
    const { next } = seeded();
    for (let round = 0; round < 300; round += 1) {
      const density = next(4);
      const entries: LedgerEntry[] = [];
      for (let block = 0; block < 256; block += 1) {
        const kind = density === 0 ? 'data' : (['data', 'zero', 'unallocated', null] as const)[next(4)];
        if (kind === 'data') entries.push({ block, kind, digest: digestOf(Buffer.of(block & 255, round & 255)) });
        else if (kind) entries.push({ block, kind });
      }
      const one = { ...window, entries };
      expect(decodeLedgerRecord(encodeLedgerRecord(one))).toEqual(one);
    }
  });

  test('is refused when any bit is wrong, at every cut, and with a byte too many', () => {
    const bytes = encodeLedgerRecord(window);
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const copy = Buffer.from(bytes);
      copy[bit >> 3]! ^= 1 << (bit & 7);
      expect(decodeLedgerRecord(copy)).toBeNull();
    }
    for (let length = 0; length < bytes.length; length += 1)
      expect(decodeLedgerRecord(bytes.subarray(0, length))).toBeNull();
    expect(decodeLedgerRecord(Buffer.concat([bytes, Buffer.of(0)]))).toBeNull();
  });

  test.each([
    ['kind', 5, [3]],
    ['kind that has no body', 5, [2]],
    ['disk over the limit', 6, [0, 4]],
    ['body over the limit', 12, uint32(9217)],
    ['fence over 2^53', 16, [...uint64(2n ** 53n)]],
    ['first window over the limit', 24, uint32(2 ** 24)],
    ['window count 0', 28, uint32(0)],
    ['window count that a window has not', 28, uint32(2)],
    ['sum over the limit', 56, [...uint64(2n ** 50n + 1n)]],
    ['sum of unchanged bytes over the limit', 64, [...uint64(2n ** 64n - 1n)]],
    ['entry count over the limit', 96, uint32(257)],
    ['zeros', 100, [1]],
    ['zeros at the end', 123, [1]],
  ])('header is refused with another %s before anything is read by it', (_, at, value) => {
    const bytes = encodeLedgerRecord(window);
    bytes.set(value, at);
    expect(decodeLedgerHeader(bytes)).toBeNull();
  });

  test('windows of which nothing was read end with the largest disk', () => {
    const last = { ...untouched, firstWindow: 2 ** 24 - 5, windowCount: 5 };
    expect(decodeLedgerRecord(encodeLedgerRecord(last))).toEqual(last);
    expect(decodeLedgerRecord(encodeLedgerRecord({ ...last, windowCount: 6 }))).toBeNull();
  });

  test.each([
    ['kind', [0, 0, 3, 0]],
    ['index over the window', [0, 1, 1, 0]],
    ['run over the window', [250, 0, 1, 9]],
    ['run of data', [0, 0, 0, 1]],
    ['data without a digest', [0, 0, 0, 0]],
  ])('an entry is refused: %s', (_, entry) => {
    const header = encodeLedgerRecord({ ...window, entries: [] });
    const bytes = Buffer.concat([header, Buffer.from(entry)]);
    bytes.writeUInt32LE(entry.length, 12);
    bytes.writeUInt32LE(1, 96);
    bytes.writeUInt32LE(crc32(bytes.subarray(128), crc32(bytes.subarray(0, 124))), 124);
    expect(decodeLedgerRecord(bytes)).toBeNull();
  });

  test('entries that go backwards are refused', () => {
    const bytes = encodeLedgerRecord({ ...window, entries: [window.entries[3]!, window.entries[1]!] });
    expect(decodeLedgerRecord(bytes)).toBeNull();
  });
});

test('height is the least that holds the blocks', () => {
  const heights = [0, 1, 256, 257, 65_536, 65_537, 256 ** 3, 256 ** 3 + 1, 2 ** 32].map(heightOf);
  expect(heights).toEqual([0, 1, 1, 2, 2, 3, 3, 4, 4]);
  expect(leafCountOf(257 * 1_048_576 - 1, 1_048_576)).toBe(2);
  expect(leafCountOf(0, 1_048_576)).toBe(0);
  expect([0, 31, 32, 33, 8192, 8224].map(isPageLength)).toEqual([false, false, true, false, true, false]);
});
