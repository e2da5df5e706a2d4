import { readFileSync, writeFileSync } from 'node:fs';
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { countedRandom, goldenKeys, secretsIn } from '../../tests/fixtures/repository/keys.ts';
import { errorCodeOf } from '../domain/errors.ts';
import { repositoryId, restorePointId, runKey } from '../domain/ids.ts';
import { createKeyedDigest, digestOf, hexDigestOf, sumOf } from './digest.ts';
import { encodeTombstone, newRepositoryFile, parseTombstone } from './documents.ts';
import type { VaultKeys } from './keys.ts';
import { decodeLedgerRecord, encodeLedgerRecord, type LedgerRecord } from './ledger.ts';
import { decodeRecordHeader, type RecordHeader } from './record.ts';
import type { NewRecord, SealedRecord } from './sealed-record.ts';
import type { DocumentName } from './sealed-text.ts';
import { openVault, plainVault, type Vault } from './vault.ts';

const { file, keys } = await goldenKeys();
const vault = openVault(keys.vault, countedRandom('vault'));
const others = openVault((await goldenKeys('others', 'cd'.repeat(16))).keys.vault, countedRandom('others'));
/** As before the last rotation. */
const older = openVault({ ...keys.vault, dataKeys: keys.vault.dataKeys.slice(0, 1) }, countedRandom('older'));

const codeOf = (work: () => unknown): string | undefined => {
  try {
    work();
    return undefined;
  } catch (error) {
    return errorCodeOf(error) ?? String(error);
  }
};

function golden(name: string, text: string): void {
  const url = new URL(`./golden/${name}`, import.meta.url);
  if (process.env['TIDEMARK_WRITE_GOLDEN']) writeFileSync(url, text);
  expect(text).toBe(readFileSync(url, 'utf8'));
}
const hexLines = (bytes: Buffer): string => bytes.toString('hex').replace(/.{1,64}/g, '$&\n');

// ---- records -------------------------------------------------------------------------------------

const point = restorePointId('00112233445566778899aabbccddeeff');
const raw = Buffer.from('a block of 33 bytes, not packed.\n');
const recordFor = (by: Vault, change: Partial<NewRecord> = {}): NewRecord => ({
  kind: 'block',
  codec: 'none',
  rawLength: raw.length,
  restorePointId: point,
  id: by.idOf(digestOf(raw)),
  payload: raw,
  ...change,
});
const place = { pack: '0f'.repeat(16), offset: 64 };
const bytesOf = ({ header, parts }: SealedRecord): Buffer => Buffer.concat([header, ...parts]);

/** As a reader does it: null for a header that is not sound. */
function openBytes(by: Vault, bytes: Buffer): Buffer | null {
  const header = decodeRecordHeader(bytes);
  return header && Buffer.from(by.openRecord(header, bytes.subarray(128, 128 + header.storedLength), place));
}
const outcome = (by: Vault, bytes: Buffer): string => {
  let opened: Buffer | null = null;
  const code = codeOf(() => (opened = openBytes(by, bytes)));
  return code ?? ((opened as Buffer | null)?.equals(raw) ? 'opened' : 'not a record');
};

const withCrc = (bytes: Buffer): Buffer => {
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 124)), 124);
  return bytes;
};
const withSum = (bytes: Buffer): Buffer => {
  sumOf(bytes.subarray(128)).copy(bytes, 96);
  return withCrc(bytes);
};
const changed = (bytes: Buffer, at: number, ...values: number[]): Buffer => {
  const copy = Buffer.from(bytes);
  copy.set(values, at);
  return copy;
};

const everyBit = (bytes: Buffer): Buffer[] =>
  Array.from({ length: bytes.length * 8 }, (_, bit) => changed(bytes, bit >> 3, bytes[bit >> 3]! ^ (1 << (bit & 7))));

describe('records', () => {
  const sealed = vault.sealRecord(recordFor(vault, { codec: 'zstd', rawLength: 1_048_576 }));
  const bytes = bytesOf(sealed);

  test('golden bytes: by the first data key, by the second, a page', () => {
    const seal = openVault(keys.vault, countedRandom('golden records'));
    const before = openVault({ ...keys.vault, dataKeys: keys.vault.dataKeys.slice(0, 1) }, countedRandom('golden old'));
    const page = Buffer.concat([digestOf(raw), Buffer.alloc(32)]);
    const records = [
      before.sealRecord(recordFor(before)),
      seal.sealRecord(recordFor(seal)),
      seal.sealRecord(recordFor(seal, { kind: 'page', id: seal.idOf(digestOf(page)), rawLength: 64, payload: page })),
    ];
    golden('encrypted-record.hex', hexLines(Buffer.concat(records.map(bytesOf))));
    expect(records.map((record) => openBytes(vault, bytesOf(record)))).toEqual([raw, raw, page]);
  });

  test('come back, by every data key, and as they were written in a plain repository', () => {
    expect(sealed.storedLength).toBe(raw.length + 16);
    expect(outcome(vault, bytes)).toBe('opened');
    expect(outcome(vault, bytesOf(older.sealRecord(recordFor(older))))).toBe('opened');
    const clear = plainVault.sealRecord(recordFor(plainVault));
    expect(clear.parts).toEqual([raw]);
    expect(outcome(plainVault, bytesOf(clear))).toBe('opened');
    expect(outcome(plainVault, changed(bytesOf(clear), 130, 0))).toBe('DAMAGED_BLOCK');
    expect(codeOf(() => plainVault.openRecord(decodeRecordHeader(clear.header)!, raw.subarray(1), place))).toBe(
      'DAMAGED_BLOCK',
    );
  });

  test('nothing of a block shows, and no two records of it are alike', () => {
    const again = bytesOf(vault.sealRecord(recordFor(vault, { codec: 'zstd', rawLength: 1_048_576 })));
    expect(again.subarray(72, 96).equals(bytes.subarray(72, 96))).toBe(false);
    expect(again.subarray(128, 140).equals(bytes.subarray(128, 140))).toBe(false);
    for (const plain of [raw.subarray(0, 8), digestOf(raw)]) expect(bytes.includes(plain)).toBe(false);
  });

  test('randomness that repeats does not give two blocks one key', () => {
    const stuck = openVault(keys.vault, { bytes: (count) => Buffer.alloc(count) });
    const saltOf = (change: Partial<NewRecord>) =>
      stuck.sealRecord(recordFor(stuck, change)).header.toString('hex', 72, 96);
    const id = stuck.idOf(digestOf(Buffer.from('another block')));
    const salts = [{}, { id }, { codec: 'zstd' as const }, { codec: 'zstd' as const, rawLength: 40 }].map(saltOf);
    expect(new Set(salts).size).toBe(4);
  });

  test('any bit of the header wrong is no record; any of the payload, a damaged one', () => {
    const outcomes = everyBit(bytes).map((wrong) => outcome(vault, wrong));
    expect(new Set(outcomes.slice(0, 1024))).toEqual(new Set(['not a record']));
    expect(new Set(outcomes.slice(1024))).toEqual(new Set(['DAMAGED_BLOCK']));
  });

  test.each([
    ['kind', 5, [2], 'TAMPERED'],
    ['codec', 6, [1], 'TAMPERED'],
    ['data key', 8, [1], 'TAMPERED'],
    ['data key that is not there', 8, [99], 'TAMPERED'],
    ['data key 0', 8, [0], 'not a record'],
    ['raw length', 12, [1], 'TAMPERED'],
    ['stored length', 16, [48], 'DAMAGED_BLOCK'],
    ['cipher', 20, [2], 'not a record'],
    ['zeros', 21, [1], 'not a record'],
    ['restore point', 24, [1], 'TAMPERED'],
    ['id', 40, [bytes[40]! ^ 1], 'TAMPERED'],
    ['salt', 72, [bytes[72]! ^ 1], 'TAMPERED'],
    ['end of the salt', 95, [bytes[95]! ^ 1], 'TAMPERED'],
    // What is read is right, and the tag says so.
    ['sum', 96, [bytes[96]! ^ 1], 'opened'],
  ])('with another %s, and its crc made right', (_, at, values, code) => {
    expect(outcome(vault, withCrc(changed(bytes, at, ...values)))).toBe(code);
  });

  test.each([
    ['payload', 128],
    ['tag', bytes.length - 1],
  ])('with another %s, and sum and crc made right', (_, at) => {
    expect(outcome(vault, withSum(changed(bytes, at, bytes[at]! ^ 1)))).toBe('TAMPERED');
  });

  test('of another repository, in the clear, or encrypted in a plain repository', () => {
    expect(outcome(others, bytes)).toBe('TAMPERED');
    expect(outcome(vault, bytesOf(plainVault.sealRecord(recordFor(vault))))).toBe('TAMPERED');
    expect(outcome(older, bytes)).toBe('TAMPERED');
    expect(outcome(plainVault, bytes)).toBe('DAMAGED_BLOCK');
  });

  test('the error names the record and its place', () => {
    const header = decodeRecordHeader(bytes)!;
    const id = Buffer.from(header.id).toString('hex');
    expect(() => vault.openRecord(header, Buffer.alloc(49), place)).toThrow(
      expect.objectContaining({
        message: `block ${id} in pack ${place.pack} at 64: its payload is damaged`,
        details: { id, ...place, why: 'its payload is damaged' },
      }),
    );
  });

  test.each<[string, Partial<NewRecord>]>([
    ['a raw length that does not fit', { rawLength: raw.length + 1 }],
    ['no payload', { payload: Buffer.alloc(0), rawLength: 0 }],
    ['a payload longer than raw', { codec: 'zstd', rawLength: raw.length - 1 }],
    ['a block over 4 MiB', { codec: 'zstd', rawLength: 4_194_305 }],
    ['an id too short', { id: Buffer.alloc(16) }],
  ])('are not written with %s', (_, change) => {
    for (const by of [vault, plainVault]) expect(codeOf(() => by.sealRecord(recordFor(by, change)))).toBe('BUG');
  });
});

// ---- documents -----------------------------------------------------------------------------------

const tombstone = {
  format: 1,
  restorePointId: point,
  run: runKey('abcdef012345'),
  abortedAt: '2026-11-24T16:00:09.000Z',
};
const named: DocumentName = { role: 'tombstone', name: point };

describe('documents', () => {
  const text = encodeTombstone(tombstone);
  const envelope = vault.sealText(named, text);
  const lines = envelope.split('\n');
  const withDigest = (...parts: string[]): string => {
    const body = `${parts.join('\n')}\n`;
    return `${body}${hexDigestOf(body)}\n`;
  };

  test('golden envelopes', () => {
    golden('encrypted-tombstone.txt', envelope);
    const manifest = readFileSync(new URL('./golden/manifest.txt', import.meta.url), 'utf8');
    const name = `${vault.nameOf('22222222-0000-4000-8000-000000000001')}/${point}`;
    golden('encrypted-manifest.txt', vault.sealText({ role: 'manifest', name }, manifest));
  });

  test('come back; the same document gives the same text, another one another', () => {
    expect(parseTombstone(vault.openText(named, envelope, 'f'), 'f')).toEqual(tombstone);
    expect(vault.sealText(named, text)).toBe(envelope);
    const salts = [
      vault.sealText(named, `${text} `),
      vault.sealText({ ...named, name: 'x' }, text),
      vault.sealText({ ...named, role: 'head' }, text),
    ].map((one) => one.split('\n')[1]);
    expect(new Set([...salts, lines[1]]).size).toBe(4);
    expect(plainVault.sealText(named, text)).toBe(text);
    expect(plainVault.openText(named, text, 'f')).toBe(text);
    expect(envelope).not.toContain(runKey('abcdef012345'));
  });

  test('any character wrong, and every cut, is damage', () => {
    for (let at = 0; at < envelope.length; at += 1) {
      const wrong = `${envelope.slice(0, at)}${envelope[at] === 'x' ? 'y' : 'x'}${envelope.slice(at + 1)}`;
      expect([at, codeOf(() => vault.openText(named, wrong, 'f'))]).toEqual([at, 'REPOSITORY_CORRUPT']);
      expect(codeOf(() => vault.openText(named, envelope.slice(0, at), 'f'))).toBe('REPOSITORY_CORRUPT');
    }
    expect(codeOf(() => vault.openText(named, `${envelope}\n`, 'f'))).toBe('REPOSITORY_CORRUPT');
    expect(codeOf(() => vault.openText(named, 'x'.repeat(6_000_000), 'f'))).toBe('REPOSITORY_CORRUPT');
  });

  const [first = '', salt = '', content = ''] = lines;
  const other = (hex: string): string => `${hex.startsWith('0') ? '1' : '0'}${hex.slice(1)}`;
  test.each([
    ['version', withDigest('TMDE 2 tombstone', salt, content)],
    ['role', withDigest('TMDE 1 head', salt, content)],
    ['salt', withDigest(first, other(salt), content)],
    ['content', withDigest(first, salt, `A${content[0] === 'A' ? 'B' : 'A'}${content.slice(2)}`)],
    ['tag', withDigest(first, salt, `${content.slice(0, -6)}AAAA${content.slice(-2)}`)],
    ['no content', withDigest(first, salt, 'AAAA')],
    ['spelling', withDigest(first, salt, `${content}=`)],
    ['the document in the clear', text],
  ])('with another %s, its digest made right, it was tampered with', (_, source) => {
    expect(codeOf(() => vault.openText(named, source, 'f'))).toBe('TAMPERED');
  });

  test('one put in the place of another was tampered with', () => {
    const names: DocumentName[] = [
      { role: 'tombstone', name: 'ff'.repeat(16) },
      { role: 'head', name: point },
      { role: 'manifest', name: `vm/${point}` },
    ];
    for (const of of names) expect(codeOf(() => vault.openText(of, envelope, 'f'))).toBe('TAMPERED');
    expect(codeOf(() => others.openText(named, envelope, 'f'))).toBe('TAMPERED');
    expect(codeOf(() => parseTombstone(plainVault.openText(named, envelope, 'f'), 'f'))).toBe('REPOSITORY_CORRUPT');
  });

  test('4 MiB fit, more is not written', () => {
    const large = 'é'.repeat(2 * 1024 * 1024);
    expect(vault.openText(named, vault.sealText(named, large), 'f') === large).toBe(true);
    expect(codeOf(() => vault.sealText(named, `${large}x`))).toBe('BUG');
  });
});

// ---- ledgers -------------------------------------------------------------------------------------

const windowOf = (firstWindow: number): LedgerRecord => ({
  kind: 'window',
  disk: 3,
  binding: 2,
  fence: 7,
  firstWindow,
  windowCount: 1,
  declared: { notReadBytes: 1, unallocatedBytes: 0, zeroBytes: 0, dataBytes: 1_048_576 },
  unchanged: { notReadBytes: 1, unallocatedBytes: 0, zeroBytes: 0, dataBytes: 0 },
  entries: [{ block: firstWindow, kind: 'data', digest: digestOf(raw) }],
});

/** Frames as a ledger file has them, one after the other. */
function ledgerOf(by: Vault, ledger = point, windows = [0, 1, 2]): Buffer[] {
  const frames: Buffer[] = [];
  for (const window of windows) {
    const before = Buffer.concat(frames).subarray(-16);
    frames.push(Buffer.from(by.sealFrame({ ledger, before }, encodeLedgerRecord(windowOf(window)))));
  }
  return frames;
}

/** The windows of a ledger file, up to where it is torn. */
function readLedger(by: Vault, bytes: Buffer, ledger = point): number[] {
  const windows: number[] = [];
  for (let at = 0; ;) {
    const length = by.frameLengthOf(bytes.subarray(at, at + by.frameHeaderBytes));
    if (length === null || at + length > bytes.length) return windows;
    const before = bytes.subarray(Math.max(0, at - 16), at);
    const frame = by.openFrame({ ledger, before }, bytes.subarray(at, at + length));
    const record = frame && decodeLedgerRecord(frame);
    if (!record) return windows;
    windows.push(record.firstWindow);
    at += length;
  }
}

describe('ledger frames', () => {
  const frames = ledgerOf(vault);
  const bytes = Buffer.concat(frames);
  const resummed = (frame: Buffer): Buffer => {
    sumOf(Buffer.concat([frame.subarray(0, 48), frame.subarray(64)])).copy(frame, 48);
    return frame;
  };
  const secondAs = (frame: Buffer): string | undefined =>
    codeOf(() => readLedger(vault, Buffer.concat([frames[0]!, frame, frames[2]!])));

  test('golden bytes', () => golden('encrypted-ledger.hex', hexLines(bytes)));

  test.each([
    ['encrypted', vault],
    ['plain', plainVault],
  ])('%s: come back, up to any cut', (_, by) => {
    const written = ledgerOf(by);
    const whole = Buffer.concat(written);
    const ends = written.map((_, at) => Buffer.concat(written.slice(0, at + 1)).length);
    for (let length = 0; length <= whole.length; length += 1) {
      const expected = ends.filter((end) => end <= length).map((_, at) => at);
      expect([length, readLedger(by, whole.subarray(0, length))]).toEqual([length, expected]);
    }
    for (const frame of written) expect(frame.length).toBeLessThanOrEqual(by.maxFrameBytes);
    if (by === vault) expect(whole.includes(digestOf(raw))).toBe(false);
  });

  test('any bit wrong is a torn end', () => {
    const place = { ledger: point, before: frames[0]!.subarray(-16) };
    expect(decodeLedgerRecord(vault.openFrame(place, frames[1]!)!)).toEqual(windowOf(1));
    for (const wrong of everyBit(frames[1]!))
      if (vault.frameLengthOf(wrong) === wrong.length) expect(vault.openFrame(place, wrong)).toBeNull();
  });

  test.each([
    ['start of the salt', 16],
    ['end of the salt', 39],
    ['content', 64],
    ['tag', frames[1]!.length - 1],
  ])('with another %s and its sum made right, a frame was tampered with', (_, at) => {
    expect(secondAs(resummed(changed(frames[1]!, at, frames[1]![at]! ^ 1)))).toBe('TAMPERED');
  });

  test.each([
    ['magic', 0, [0]],
    ['version', 4, [2]],
    ['cipher', 5, [0]],
    ['zeros', 6, [1]],
    ['length too small', 8, [143, 0, 0, 0]],
    ['length too large', 8, [0xb1, 0x24, 0, 0]],
    ['zeros before the salt', 12, [1]],
    ['zeros behind the salt', 47, [1]],
  ])('is refused with another %s before anything is read by it', (_, at, values) => {
    expect(vault.frameLengthOf(changed(frames[1]!, at, ...values))).toBeNull();
    expect(secondAs(resummed(changed(frames[1]!, at, ...values)))).toBeUndefined();
  });

  test('frames taken out, put in another order, twice, from another time, ledger or repository', () => {
    const [a, b, c] = frames as [Buffer, Buffer, Buffer];
    const earlier = ledgerOf(vault, point, [5, 1, 2]);
    const elsewhere = ledgerOf(vault, restorePointId('ff'.repeat(16)));
    const ledgers = [[b, c], [a, c], [a, c, b], [a, b, b], [a, earlier[1]!], [elsewhere[0]!], ledgerOf(others)];
    for (const ledger of ledgers) expect(codeOf(() => readLedger(vault, Buffer.concat(ledger)))).toBe('TAMPERED');
    // What the medium held before cannot be told from a death just then.
    expect(readLedger(vault, Buffer.concat([a, b]))).toEqual([0, 1]);
  });

  test('the longest frame fits', () => {
    const entries = Array.from({ length: 256 }, (_, block) => ({
      block,
      kind: 'data' as const,
      digest: digestOf(raw),
    }));
    const frame = encodeLedgerRecord({ ...windowOf(0), entries });
    for (const by of [vault, plainVault]) {
      const sealed = Buffer.from(by.sealFrame({ ledger: point, before: Buffer.alloc(0) }, frame));
      expect(sealed.length).toBe(by.maxFrameBytes);
      expect(readLedger(by, sealed)).toEqual([0]);
    }
  });
});

// ---- names, ids, threads -------------------------------------------------------------------------

test('ids and names are keyed; those of a plain repository are not', () => {
  const digest = digestOf(raw);
  expect(plainVault.idOf(digest)).toEqual(digest);
  const id = Buffer.from(vault.idOf(digest));
  expect(id).not.toEqual(digest);
  expect(Buffer.from(vault.idOf(digest))).toEqual(id);
  expect(Buffer.from(others.idOf(digest))).not.toEqual(id);
  expect(Buffer.from(older.idOf(digest))).toEqual(id);
  expect(vault.nameOf('web')).toMatch(/^[0-9a-f]{32}$/);
  expect(new Set(['web', 'web2', others.nameOf('web')].map((name) => vault.nameOf(name))).size).toBe(3);
  expect(plainVault.nameOf('22222222-0000-4000-8000-000000000001')).toBe('22222222-0000-4000-8000-000000000001');
  for (const id of ['../../etc', '.hidden', '', 'a/b', 'x'.repeat(65), 'ä'])
    expect(plainVault.nameOf(id)).toMatch(/^h-[0-9a-f]{32}$/);
});

test('a keyed digest is that of the BLAKE3 test vectors', () => {
  const digest = createKeyedDigest(Buffer.from('whats the Elvish word for friend'));
  expect(digest(Buffer.alloc(0)).toString('hex')).toBe(
    '92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26',
  );
});

test('keys posted to a thread make the same vault there', () => {
  const { port1, port2 } = new MessageChannel();
  port1.postMessage(keys.vault);
  const posted = (receiveMessageOnPort(port2) as { message: VaultKeys }).message;
  port1.close();
  expect(secretsIn({ master: keys.master, vault: posted })).toEqual(secretsIn(keys));
  const there = openVault(posted, countedRandom('there'));
  expect(outcome(vault, bytesOf(there.sealRecord(recordFor(there))))).toBe('opened');
});

test('a changed repository.json is signed by the vault; a plain one stays as it is', () => {
  const next = { ...file, generation: file.generation + 1 };
  expect(vault.signFile(file)).toEqual(file);
  expect(vault.signFile(next).keyCheck).not.toEqual(file.keyCheck);
  const plain = newRepositoryFile(repositoryId('main'), 'ab'.repeat(16), 'now');
  expect(plainVault.signFile(plain)).toBe(plain);
});

test('a header says how it is encrypted, and comes back', () => {
  const { header } = vault.sealRecord(recordFor(vault));
  const decoded = decodeRecordHeader(header) as RecordHeader;
  expect(decoded.encryption).toMatchObject({ keyId: 2 });
  expect(decoded.storedLength).toBe(raw.length + 16);
});
