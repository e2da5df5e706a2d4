/**
 * What an encrypted repository keeps, opened with its keys. Mending makes sums right, or seals what the input is: only
 * who has the keys comes behind the tags.
 */
import { restorePointId } from '../../schema/domain/ids.ts';
import { digestOf, hexDigestOf, sumOf } from '../../schema/repository/digest.ts';
import {
  LEDGER_HEADER_BYTES,
  MAX_LEDGER_FRAME_BYTES,
  RECORD_HEADER_BYTES,
  SEALED_FRAME_HEADER_BYTES,
  TAG_BYTES,
} from '../../schema/repository/limits.ts';
import { decodeRecordHeader, type RecordHeader } from '../../schema/repository/record.ts';
import { checkNewSecret } from '../../schema/repository/secrets.ts';
import type { FramePlace } from '../../schema/repository/sealed-frame.ts';
import type { DocumentName } from '../../schema/repository/sealed-text.ts';
import { openVault } from '../../schema/repository/vault.ts';
import type { Next } from '../fixtures/mover/disks.ts';
import { countedRandom, goldenKeys, KEY_FILE } from '../fixtures/repository/keys.ts';
import { golden, ITS_BYTES, mendCrc } from './golden.ts';
import { bytesFlaw, fuzzTarget, type FuzzTarget } from './judge.ts';

const vault = openVault((await goldenKeys()).keys.vault, countedRandom('fuzz'));
const point = restorePointId('00112233445566778899aabbccddeeff');
/** Where opening begins it joins what it authenticates: nonces, contexts, tags. */
const SMALL = 64 * 1024;

// ---- records -------------------------------------------------------------------------------------

function sealRecordOf(payload: Buffer): Buffer {
  const record = { kind: 'block', codec: 'none', rawLength: payload.length, restorePointId: point, payload } as const;
  const { header, parts } = vault.sealRecord({ ...record, id: vault.idOf(digestOf(payload)) });
  return Buffer.concat([header, ...parts]);
}

function mendRecord(input: Buffer, next: Next): Buffer {
  if (next(3) === 0 && input.length > 0) return sealRecordOf(input);
  if (input.length >= RECORD_HEADER_BYTES) sumOf(input.subarray(RECORD_HEADER_BYTES)).copy(input, 96);
  mendCrc(input, 0, RECORD_HEADER_BYTES - 4);
  return input;
}

const goldenRecords = golden('encrypted-record.hex');
const RECORD_BYTES = RECORD_HEADER_BYTES + goldenRecords.readUInt32LE(16);

const sealedRecord = fuzzTarget<{ header: RecordHeader; payload: Uint8Array }>({
  name: 'sealed-record',
  kind: 'binary',
  seeds: [goldenRecords.subarray(0, RECORD_BYTES), goldenRecords.subarray(RECORD_BYTES, 2 * RECORD_BYTES)],
  mend: mendRecord,
  parse: (input) => {
    const header = decodeRecordHeader(input);
    const stored = header && input.subarray(RECORD_HEADER_BYTES, RECORD_HEADER_BYTES + header.storedLength);
    const at = { pack: '0f'.repeat(16), offset: 64 };
    return stored && { header, payload: vault.openRecord(header, stored, at) };
  },
  codes: ['DAMAGED_BLOCK', 'TAMPERED'],
  maxAllocatedBytes: () => SMALL,
  flaw: ({ header, payload }) =>
    payload.byteLength + TAG_BYTES === header.storedLength ? null : `${payload.byteLength} bytes were opened`,
});

// ---- documents -----------------------------------------------------------------------------------

const tombstone: DocumentName = { role: 'tombstone', name: point };

/** Its digest, or all of it, made anew. */
function mendDocument(input: Buffer, next: Next): Buffer {
  const text = input.toString();
  if (next(3) === 0) return Buffer.from(vault.sealText(tombstone, text));
  const body = text.split('\n').slice(0, 3).join('\n');
  return Buffer.from(`${body}\n${hexDigestOf(`${body}\n`)}\n`);
}

const sealedDocument = fuzzTarget<string>({
  name: 'sealed-document',
  kind: 'binary',
  seeds: [golden('encrypted-tombstone.txt')],
  mend: mendDocument,
  parse: (input) => vault.openText(tombstone, input.toString(), 'the file'),
  codes: ['REPOSITORY_CORRUPT', 'TAMPERED'],
  maxAllocatedBytes: (inputBytes) => 3 * ITS_BYTES(inputBytes) + SMALL,
  flaw: (text, input) => bytesFlaw(input, Buffer.from(vault.sealText(tombstone, text))),
});

// ---- ledger --------------------------------------------------------------------------------------

type Frames = { place: FramePlace; frame: Uint8Array; bytes: Buffer }[];

function readFrames(input: Buffer): Frames {
  const frames: Frames = [];
  for (let at = 0; ;) {
    const length = vault.frameLengthOf(input.subarray(at, at + SEALED_FRAME_HEADER_BYTES)) ?? Infinity;
    if (at + length > input.length) return frames;
    const place = { ledger: point, before: input.subarray(Math.max(0, at - 16), at) };
    const bytes = input.subarray(at, at + length);
    const frame = vault.openFrame(place, bytes);
    if (frame === null) return frames;
    frames.push({ place, frame, bytes });
    at += length;
  }
}

/** The sum of each frame, or the whole sealed as frames of any length. */
function mendFrames(input: Buffer, next: Next): Buffer {
  if (next(3) === 0) return sealFramesOf(input, next);
  for (let at = 0; at + SEALED_FRAME_HEADER_BYTES <= input.length;) {
    const end = Math.min(input.length, at + SEALED_FRAME_HEADER_BYTES + input.readUInt32LE(at + 8));
    const sealed = input.subarray(at + SEALED_FRAME_HEADER_BYTES, end);
    sumOf(Buffer.concat([input.subarray(at, at + 48), sealed])).copy(input, at + 48);
    at = end;
  }
  return input;
}

function sealFramesOf(input: Buffer, next: Next): Buffer {
  let sealed = Buffer.alloc(0);
  for (let at = 0; at < input.length;) {
    const length = LEDGER_HEADER_BYTES + next(MAX_LEDGER_FRAME_BYTES - LEDGER_HEADER_BYTES + 1);
    const frame = Buffer.alloc(Math.min(length, Math.max(LEDGER_HEADER_BYTES, input.length - at)));
    input.copy(frame, 0, at);
    sealed = Buffer.concat([sealed, vault.sealFrame({ ledger: point, before: sealed.subarray(-16) }, frame)]);
    at += length;
  }
  return sealed;
}

const sealedLedger = fuzzTarget<Frames>({
  name: 'sealed-ledger',
  kind: 'binary',
  seeds: [golden('encrypted-ledger.hex')],
  mend: mendFrames,
  parse: (input) => {
    const frames = readFrames(input);
    return frames.length === 0 ? null : frames;
  },
  codes: ['TAMPERED'],
  maxAllocatedBytes: (inputBytes) => inputBytes + SMALL,
  flaw: (frames) =>
    frames
      .map(({ place, frame, bytes }) => bytesFlaw(bytes, Buffer.from(vault.sealFrame(place, frame))))
      .find((flaw) => flaw !== null) ?? null,
});

// ---- key files -----------------------------------------------------------------------------------

/** The check digits of its text form. */
function mendKeyFile(input: Buffer): Buffer {
  const [form = '', key = ''] = input.toString('latin1').split(':');
  return Buffer.from(`${form}:${key}:${digestOf(Buffer.from(key, 'hex')).toString('hex', 0, 4)}\n`, 'latin1');
}

const keyFile = fuzzTarget<true>({
  name: 'key-file',
  kind: 'binary',
  seeds: [Buffer.from(KEY_FILE.kind === 'keyfile' ? KEY_FILE.content : [])],
  mend: mendKeyFile,
  parse: (content) => {
    checkNewSecret({ kind: 'keyfile', content });
    return true;
  },
  codes: ['WRONG_KEY', 'BAD_REQUEST'],
  maxAllocatedBytes: ITS_BYTES,
  flaw: () => null,
});

export const sealedTargets: FuzzTarget[] = [sealedRecord, sealedDocument, sealedLedger, keyFile];
