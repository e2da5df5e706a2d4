/** Every parser of the repository's format (FORMAT.md). Seeds are the golden files. */
import { canonicalJson } from '../../schema/repository/checked-json.ts';
import { crcOf, hexDigestOf, sumOf } from '../../schema/repository/digest.ts';
import {
  encodeHead,
  encodeManifest,
  encodeRepositoryFile,
  encodeTombstone,
  parseHead,
  parseManifest,
  parseRepositoryFile,
  parseTombstone,
  type RepositoryFile,
} from '../../schema/repository/documents.ts';
import { keySumOf, signedTextOf } from '../../schema/repository/key-shapes.ts';
import {
  decodeLedgerHeader,
  decodeLedgerRecord,
  encodeLedgerRecord,
  type LedgerRecord,
} from '../../schema/repository/ledger.ts';
import {
  FOOTER_ENTRY_BYTES,
  FOOTER_TRAILER_BYTES,
  LEDGER_HEADER_BYTES,
  PACK_HEADER_BYTES,
  PAGE_BYTES,
  RECORD_HEADER_BYTES,
} from '../../schema/repository/limits.ts';
import { entryOf, isPageLength } from '../../schema/repository/map-page.ts';
import {
  decodeFooterEntries,
  decodePackHeader,
  decodeTrailer,
  encodeFooter,
  encodePackHeader,
  type PackRecord,
} from '../../schema/repository/pack.ts';
import { decodeRecordHeader, encodeRecordHeader } from '../../schema/repository/record.ts';
import type { Next } from '../fixtures/mover/disks.ts';
import { golden, ITS_BYTES, mendCrc, NOTHING } from './golden.ts';
import { bytesFlaw, encodingFlaw, fuzzTarget, type FuzzTarget } from './judge.ts';

// ---- JSON documents ----------------------------------------------------------------------------

const FILE = 'the file';
const textOf = (input: Buffer): string => input.toString('utf8');

/** The same value when it is encoded and parsed again, and the same text when it was canonical and all of it is known. */
function jsonFlaw<T>(value: T, line: string, encode: (value: T) => string, parse: (text: string) => T): string | null {
  const encoded = encode(value);
  if (encode(parse(encoded)) !== encoded) return 'encoded and parsed again it is something else';
  return canonicalJson(value) === line && !encoded.startsWith(`${line}\n`) ? 'it is encoded in other words' : null;
}

const mendDigest = (input: Buffer): Buffer => {
  const [line = ''] = textOf(input).split('\n', 1);
  return Buffer.from(`${line}\n${hexDigestOf(line)}\n`);
};

function checked<T>(name: string, parse: (text: string) => T, encode: (value: T) => string): FuzzTarget {
  return fuzzTarget<{ value: T; line: string }>({
    name,
    kind: 'json',
    seeds: [golden(`${name}.txt`)],
    mend: mendDigest,
    parse: (input) => {
      const text = textOf(input);
      return { value: parse(text), line: text.slice(0, text.indexOf('\n')) };
    },
    codes: ['REPOSITORY_CORRUPT'],
    maxAllocatedBytes: ITS_BYTES,
    flaw: ({ value, line }) => jsonFlaw(value, line, encode, parse),
  });
}

/** With the sum of the keys made right, where it has one. */
function mendKeys(input: Buffer): Buffer {
  try {
    const file = JSON.parse(textOf(input)) as RepositoryFile;
    const sum = keySumOf(signedTextOf(file), file.keyCheck!.mac);
    return Buffer.from(`${canonicalJson({ ...file, keyCheck: { ...file.keyCheck, sum } })}\n`);
  } catch {
    return input;
  }
}

const documents = [
  fuzzTarget({
    name: 'repository',
    kind: 'json',
    seeds: [golden('repository.txt'), golden('encrypted-repository.txt')],
    mend: mendKeys,
    parse: (input) => parseRepositoryFile(textOf(input), FILE),
    codes: ['REPOSITORY_CORRUPT', 'REPOSITORY_NEWER', 'REPOSITORY_OLDER'],
    maxAllocatedBytes: ITS_BYTES,
    flaw: (value, input) =>
      jsonFlaw(value, textOf(input).trimEnd(), encodeRepositoryFile, (text) => parseRepositoryFile(text, FILE)),
  }),
  checked('head', (text) => parseHead(text, FILE), encodeHead),
  checked(
    'manifest',
    (text) => parseManifest(text, FILE).manifest,
    (value) => encodeManifest(value).text,
  ),
  checked('tombstone', (text) => parseTombstone(text, FILE), encodeTombstone),
];

// ---- records and packs -------------------------------------------------------------------------

const recordHeader = fuzzTarget({
  name: 'record-header',
  kind: 'binary',
  seeds: [golden('record.hex'), golden('encrypted-record.hex').subarray(0, RECORD_HEADER_BYTES)],
  mend: (input) => {
    mendCrc(input, 0, RECORD_HEADER_BYTES - 4);
    return input;
  },
  parse: decodeRecordHeader,
  codes: [],
  maxAllocatedBytes: NOTHING,
  flaw: (header, input) => bytesFlaw(input.subarray(0, RECORD_HEADER_BYTES), encodeRecordHeader(header)),
});

const packHeader = fuzzTarget({
  name: 'pack-header',
  kind: 'binary',
  seeds: [golden('pack.hex').subarray(0, PACK_HEADER_BYTES)],
  mend: (input) => {
    mendCrc(input, 0, PACK_HEADER_BYTES - 4);
    return input;
  },
  parse: decodePackHeader,
  codes: [],
  maxAllocatedBytes: NOTHING,
  flaw: (header, input) => bytesFlaw(input.subarray(0, PACK_HEADER_BYTES), encodePackHeader(header)),
});

/** As many entries as the trailer says, or now and then as there is room for. */
function mendFooter(input: Buffer, next: Next): Buffer {
  const trailer = input.length - FOOTER_TRAILER_BYTES;
  if (trailer < 0) return input;
  const room = Math.floor(trailer / FOOTER_ENTRY_BYTES);
  if (next(4) === 0) input.writeUInt32LE(next(room + 1), trailer + 8);
  const first = trailer - input.readUInt32LE(trailer + 8) * FOOTER_ENTRY_BYTES;
  if (first >= 0) {
    for (let at = first; at < trailer; at += FOOTER_ENTRY_BYTES) mendCrc(input, at, RECORD_HEADER_BYTES - 4);
    if (next(4) > 0) input.writeBigUInt64LE(BigInt(first), trailer + 16);
    input.set(sumOf(input.subarray(first, trailer)), trailer + 24);
  }
  mendCrc(input, trailer, FOOTER_TRAILER_BYTES - 4);
  return input;
}

const packFooter = fuzzTarget<{ entriesOffset: number; records: PackRecord[] }>({
  name: 'pack-footer',
  kind: 'binary',
  seeds: [golden('pack.hex')],
  mend: mendFooter,
  parse: (input) => {
    const at = input.length - FOOTER_TRAILER_BYTES;
    const trailer = at < 0 ? null : decodeTrailer(input.subarray(at), input.length);
    const records = trailer && decodeFooterEntries(input.subarray(trailer.entriesOffset, at), trailer);
    return records && { entriesOffset: trailer.entriesOffset, records };
  },
  codes: [],
  maxAllocatedBytes: NOTHING,
  flaw: ({ entriesOffset, records }, input) => {
    const entries = records.map(({ header, offset }) => ({ header: encodeRecordHeader(header), offset }));
    return bytesFlaw(input.subarray(entriesOffset), encodeFooter(entries, entriesOffset));
  },
});

// ---- ledger and map ----------------------------------------------------------------------------

type Frames = { record: LedgerRecord; bytes: Buffer }[];

/** As FORMAT.md has it: the first frame that is cut or fails ends the ledger. */
function readLedger(input: Buffer): Frames {
  const frames: Frames = [];
  for (let at = 0; ;) {
    const header = decodeLedgerHeader(input.subarray(at));
    const end = at + LEDGER_HEADER_BYTES + (header?.bodyBytes ?? Infinity);
    const record = end <= input.length ? decodeLedgerRecord(input.subarray(at, end)) : null;
    if (record === null) return frames;
    frames.push({ record, bytes: input.subarray(at, end) });
    at = end;
  }
}

function mendLedger(input: Buffer): Buffer {
  for (let at = 0; at + LEDGER_HEADER_BYTES <= input.length;) {
    const end = Math.min(input.length, at + LEDGER_HEADER_BYTES + input.readUInt32LE(at + 12));
    const header = crcOf(input.subarray(at, at + 124));
    input.writeUInt32LE(crcOf(input.subarray(at + LEDGER_HEADER_BYTES, end), header), at + 124);
    at = end;
  }
  return input;
}

function ledgerFlaw({ record, bytes }: Frames[number]): string | null {
  const again = encodeLedgerRecord(record);
  return encodingFlaw(bytes, again, record, decodeLedgerRecord(again));
}

const ledger = fuzzTarget<Frames>({
  name: 'ledger',
  kind: 'binary',
  seeds: [golden('ledger.hex')],
  mend: mendLedger,
  parse: (input) => {
    const frames = readLedger(input);
    return frames.length === 0 ? null : frames;
  },
  codes: [],
  maxAllocatedBytes: NOTHING,
  flaw: (frames) => frames.map(ledgerFlaw).find((flaw) => flaw !== null) ?? null,
});

const mapPage = fuzzTarget<Uint8Array[]>({
  name: 'map-page',
  kind: 'binary',
  seeds: [Buffer.alloc(PAGE_BYTES, 0xd1), golden('pack.hex').subarray(0, 96)],
  mend: (input) => input.subarray(0, input.length & ~31),
  parse: (page) =>
    isPageLength(page.length) ? Array.from({ length: page.length / 32 }, (_, index) => entryOf(page, index)) : null,
  codes: [],
  maxAllocatedBytes: NOTHING,
  flaw: (entries, page) => bytesFlaw(page, Buffer.concat(entries)),
});

export const repositoryTargets: FuzzTarget[] = [...documents, recordHeader, packHeader, packFooter, ledger, mapPage];
