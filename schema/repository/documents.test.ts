import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { errorCodeOf } from '../domain/errors.ts';
import {
  diskKey,
  hostId,
  jobId,
  lineageId,
  repositoryId,
  restorePointId,
  runKey,
  sessionId,
  vmId,
} from '../domain/ids.ts';
import type { Manifest } from '../domain/restore-point.ts';
import { canonicalJson, decodeChecked, encodeChecked } from './checked-json.ts';
import { hexDigestOf } from './digest.ts';
import {
  encodeHead,
  encodeManifest,
  encodeRepositoryFile,
  encodeTombstone,
  newRepositoryFile,
  parseHead,
  parseManifest,
  parseRepositoryFile,
  parseTombstone,
  type Head,
  type Tombstone,
} from './documents.ts';
import { MAX_DOCUMENT_BYTES } from './limits.ts';

const id = restorePointId('00112233445566778899aabbccddeeff');
const base = restorePointId('ff112233445566778899aabbccddeeff');
const run = runKey('abcdef012345');
const disk = diskKey('d0');
const reason = { code: 'OK', message: 'the bitmap is whole' };
const common = {
  run,
  lineage: lineageId('0123456789abcdef'),
  jobId: jobId('nightly'),
  sessionId: sessionId('s-1'),
  nominalTime: '2026-11-24T16:00:00.000Z',
};
const repositoryFile = newRepositoryFile(repositoryId('main'), 'ab'.repeat(16), '2026-11-24T16:00:00.000Z');
const head: Head = {
  format: 1,
  restorePointId: id,
  openedAt: '2026-11-24T16:00:01.000Z',
  spec: {
    ...common,
    vm: { vmId: vmId('22222222-0000-4000-8000-000000000001'), hostId: hostId('h1') },
    vmName: 'web',
    blockSize: 1_048_576,
    compression: 'balanced',
  },
  baseRestorePointId: base,
  declared: [{ diskKey: disk, sizeBytes: 10_000_000, identity: 'i0' }],
  disks: [
    {
      number: 0,
      binding: 1,
      fence: 4,
      assignment: 2,
      checkpoint: 'c1',
      plan: { diskKey: disk, sizeBytes: 10_000_000, identity: 'i0', mode: 'cbt', reason, baseRestorePointId: base },
      blockSize: 1_048_576,
      base: { restorePointId: base, root: '1d'.repeat(32), height: 1, sizeBytes: 9_000_000 },
      filterDigest: null,
    },
  ],
};
const manifest: Manifest = {
  format: 1,
  repository: repositoryId('main'),
  restorePointId: id,
  ...common,
  vm: { vmId: '22222222-0000-4000-8000-000000000001', hostId: 'h1', name: 'Wéb "1"\n' },
  takenAt: '2026-11-24T16:00:02.000Z',
  sealedAt: '2026-11-24T16:00:09.000Z',
  writer: 'tidemark',
  baseRestorePointId: base,
  consistency: { asked: 'prefer', reached: 'crash', frozenMs: null, why: { code: 'NO_AGENT', message: 'none there' } },
  warnings: [{ level: 'warning', code: 'NO_AGENT', message: 'none there' }],
  leftOut: [{ diskKey: diskKey('cd'), why: { code: 'READ_ONLY', message: 'an optical disk' } }],
  referencePoint: {
    run,
    lineage: common.lineage,
    platformId: 'p1',
    disks: [{ diskKey: disk, trackingId: 'td-s1-abcdef012345-bm0', identity: 'i0', sizeBytes: 10_000_000 }],
  },
  disks: [
    {
      diskKey: disk,
      identity: 'i0',
      sizeBytes: 10_000_000,
      blockSize: 1_048_576,
      root: '2e'.repeat(32),
      height: 1,
      filterDigest: null,
      baseRoot: '1d'.repeat(32),
      mode: 'cbt',
      reason,
      audit: { sampled: 0, mismatched: 0 },
      conservation: {
        sizeBytes: 10_000_000,
        unallocatedBytes: 0,
        zeroBytes: 1_048_576,
        filteredBytes: 0,
        unchangedBytes: 6_854_272,
        deduplicatedBytes: 1_048_576,
        storedBytes: 1_048_576,
      },
      readBytes: 3_145_728,
      sentBytes: 65_536,
    },
  ],
  configurationRoot: null,
  ledgerDigest: '3f'.repeat(32),
  suspect: false,
};
const tombstone: Tombstone = { format: 1, restorePointId: id, run, abortedAt: '2026-11-24T16:00:09.000Z' };

const codeOf = (work: () => unknown): string | undefined => {
  try {
    work();
    return undefined;
  } catch (error) {
    return `${errorCodeOf(error)}: ${(error as Error).message}`;
  }
};

test.each([
  ['repository', () => encodeRepositoryFile(repositoryFile)],
  ['manifest', () => encodeManifest(manifest).text],
  ['head', () => encodeHead(head)],
  ['tombstone', () => encodeTombstone(tombstone)],
])('golden text of a %s', (name, encode) => {
  const file = new URL(`./golden/${name}.txt`, import.meta.url);
  if (process.env['TIDEMARK_WRITE_GOLDEN']) writeFileSync(file, encode());
  expect(encode()).toBe(readFileSync(file, 'utf8'));
});

test('a head that was written before there were levels of compression is read', () => {
  const text = readFileSync(new URL('./golden/head-with-codec.txt', import.meta.url), 'utf8');
  expect(text).toContain('"codec":"zstd"');
  expect(parseHead(text, 'f')).toEqual(head);
});

test('documents come back as they were', () => {
  expect(parseRepositoryFile(encodeRepositoryFile(repositoryFile), 'f')).toEqual(repositoryFile);
  const { text, digest } = encodeManifest(manifest);
  expect(parseManifest(text, 'f')).toEqual({ manifest, digest });
  expect(parseHead(encodeHead(head), 'f')).toEqual(head);
  expect(parseTombstone(encodeTombstone(tombstone), 'f')).toEqual(tombstone);
});

test('canonical json: keys by code unit, no white space, absent members left out', () => {
  expect(canonicalJson({ b: [1, { z: null, a: 'ä\u2028' }], a: undefined, B: 1e21, é: true })).toBe(
    '{"B":1e+21,"b":[1,{"a":"ä\u2028","z":null}],"é":true}',
  );
});

test('a checked file is refused when a character is wrong, and at every cut', () => {
  const { text } = encodeManifest(manifest);
  for (let at = 0; at < text.length; at += 13) {
    const other = text[at] === 'x' ? 'y' : 'x';
    expect(codeOf(() => parseManifest(text.slice(0, at) + other + text.slice(at + 1), 'f'))).toMatch(
      /^REPOSITORY_CORRUPT: f /,
    );
  }
  for (let length = 0; length < text.length; length += 1)
    expect(codeOf(() => parseManifest(text.slice(0, length), 'f'))).toMatch(/^REPOSITORY_CORRUPT: f /);
  expect(codeOf(() => decodeChecked(`nonsense\n${hexDigestOf('nonsense')}\n`, 'f'))).toBe(
    'REPOSITORY_CORRUPT: f is not json',
  );
});

test('a checked file is refused beyond its limit, whatever is in it', () => {
  const long = `${' '.repeat(MAX_DOCUMENT_BYTES)}{}`;
  const text = `${long}\n${hexDigestOf(long)}\n`;
  expect(codeOf(() => decodeChecked(text, 'f'))).toBe('REPOSITORY_CORRUPT: f is longer than 4194304 bytes');
  expect(decodeChecked(`${long.slice(100)}\n${hexDigestOf(long.slice(100))}\n`, 'f').value).toEqual({});
});

test('what could not be read again is not written', () => {
  expect(codeOf(() => encodeChecked({ a: 'x'.repeat(100) }, 50))).toMatch(/^BUG/);
  expect(codeOf(() => encodeManifest({ ...manifest, writer: 'x'.repeat(5000) }))).toMatch(
    /^BAD_REQUEST: manifest: writer/,
  );
  expect(codeOf(() => encodeHead({ ...head, openedAt: 5 as unknown as string }))).toMatch(/^BAD_REQUEST.*openedAt/);
  expect(codeOf(() => encodeTombstone({ ...tombstone, restorePointId: restorePointId('../x') }))).toMatch(
    /^BAD_REQUEST/,
  );
});

type Change = (document: Record<string, never>) => void;
const altered = (document: unknown, change: Change): string => {
  const copy = structuredClone(document) as Record<string, never>;
  change(copy);
  return encodeChecked(copy, 8_000_000).text;
};
const set =
  (path: string, value: unknown): Change =>
  (document) => {
    const keys = path.split('.');
    const last = keys.pop()!;
    let at = document as Record<string, unknown>;
    for (const key of keys) at = at[key] as Record<string, unknown>;
    at[last] = value;
  };

describe('limits, each named', () => {
  test.each([
    ['format', 2],
    ['format', 0],
    ['restorePointId', 'xyz'],
    ['repository', 5],
    ['vm.name', null],
    ['disks', Array.from({ length: 1025 }, () => manifest.disks[0])],
    ['disks.0.sizeBytes', -1],
    ['disks.0.sizeBytes', 2 ** 50 + 1],
    ['disks.0.sizeBytes', 1.5],
    ['disks.0.blockSize', 1_000_000],
    ['disks.0.root', 'ABCD'],
    ['disks.0.height', 6],
    ['disks.0.filterDigest', ''],
    ['disks.0.mode', 'quick'],
    ['disks.0.conservation.zeroBytes', '1'],
    ['disks.0.readBytes', -1],
    ['baseRestorePointId', 'none'],
    ['consistency.reached', 'perfect'],
    ['referencePoint.disks', {}],
    ['leftOut.0.why', 'why'],
    ['ledgerDigest', null],
    ['suspect', 0],
  ])('manifest: %s of %s', (path, value) => {
    expect(codeOf(() => parseManifest(altered(manifest, set(path, value)), 'f'))).toMatch(
      new RegExp(`^REPOSITORY_CORRUPT: f: ${path.replaceAll('.', '\\.')}`),
    );
  });

  test.each([
    ['spec.blockSize', 4096],
    ['spec.compression', 'gzip'],
    ['declared.0.sizeBytes', null],
    ['disks.0.fence', -1],
    ['disks.0.binding', 0.5],
    ['disks.0.base.height', 9],
    ['disks.0.plan.mode', ''],
    ['disks.0.plan.baseRestorePointId', 'x'],
  ])('head: %s of %s', (path, value) => {
    expect(codeOf(() => parseHead(altered(head, set(path, value)), 'f'))).toMatch(
      new RegExp(`^REPOSITORY_CORRUPT: f: ${path.replaceAll('.', '\\.')}`),
    );
  });

  test('members that are not known are ignored', () => {
    expect(parseManifest(altered(manifest, set('later', 1)), 'f').manifest).toEqual(manifest);
    expect(parseHead(altered(head, set('disks.0.later', {})), 'f')).toEqual(head);
  });
});

describe('repository.json', () => {
  const text = (change: Record<string, unknown>): string => canonicalJson({ ...repositoryFile, ...change });
  test.each([
    ['a higher format', { format: 2 }, 'REPOSITORY_NEWER'],
    ['the format before the first', { format: 0 }, 'REPOSITORY_OLDER'],
    ['a feature that must be understood', { features: { must: ['x'], may: [] } }, 'REPOSITORY_NEWER'],
    ['a higher format of another shape', { format: 9, blockSizes: 'all' }, 'REPOSITORY_NEWER'],
    ['a uuid that is none', { uuid: 'x' }, 'REPOSITORY_CORRUPT'],
    ['a block size of another kind', { blockSizes: [3] }, 'REPOSITORY_CORRUPT'],
    ['no repository id', { repository: undefined }, 'REPOSITORY_CORRUPT'],
    ['17 levels', { keyCheck: JSON.parse('['.repeat(16) + ']'.repeat(16)) as unknown }, 'REPOSITORY_CORRUPT'],
  ])('%s', (_, change, code) => {
    expect(codeOf(() => parseRepositoryFile(text(change), 'f'))).toContain(`${code}: f`);
  });

  test('features that may be ignored are; nonsense and what is too long is refused', () => {
    expect(parseRepositoryFile(text({ features: { must: [], may: ['x'] } }), 'f').features.may).toEqual(['x']);
    expect(codeOf(() => parseRepositoryFile('not json', 'f'))).toMatch(/^REPOSITORY_CORRUPT/);
    expect(codeOf(() => parseRepositoryFile(' '.repeat(70_000), 'f'))).toMatch(/^REPOSITORY_CORRUPT/);
    const deep = canonicalJson(repositoryFile).replace('null', '['.repeat(20_000) + ']'.repeat(20_000));
    expect(codeOf(() => parseRepositoryFile(deep, 'f'))).toMatch(/^REPOSITORY_CORRUPT/);
  });
});
