import { readFileSync, writeFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';
import {
  CHEAP,
  countedRandom,
  goldenKeys,
  KEY_FILE,
  optionsOf,
  PASSPHRASE,
  secretsIn,
} from '../../tests/fixtures/repository/keys.ts';
import { errorCodeOf } from '../domain/errors.ts';
import { repositoryId } from '../domain/ids.ts';
import { canonicalJson } from './checked-json.ts';
import { encodeRepositoryFile, newRepositoryFile, parseRepositoryFile, type RepositoryFile } from './documents.ts';
import { keySumOf, signedTextOf } from './key-shapes.ts';
import { addSlot, createKeys, removeSlot, rotateDataKey, signRepositoryFile, unlock } from './keys.ts';
import { DEFAULT_SCRYPT, newKeyFile, type Secret } from './secrets.ts';

const { file, keys } = await goldenKeys();
const plain = newRepositoryFile(repositoryId('main'), 'ab'.repeat(16), '2026-11-24T16:00:00.000Z');
const options = optionsOf('more');
const other: Secret = { kind: 'passphrase', passphrase: 'another passphrase' };

/** What was thrown in this file, for the last test. */
const thrown: unknown[] = [];
async function codeOf(work: () => unknown): Promise<string | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    thrown.push(error);
    return errorCodeOf(error) ?? String(error);
  }
}

const reread = (of: RepositoryFile): RepositoryFile => parseRepositoryFile(encodeRepositoryFile(of), 'f');
const opened = async (of: RepositoryFile, secret: Secret) => secretsIn(await unlock(reread(of), secret));

test('golden repository.json and its keys', async () => {
  const [texts, secrets] = [
    [new URL('./golden/encrypted-repository.txt', import.meta.url), encodeRepositoryFile(file)],
    [
      new URL('./golden/encrypted-keys.txt', import.meta.url),
      `${JSON.stringify({ passphrase: 'correct horse battery stäple', keyFile: newKeyFile(countedRandom('key file')), ...secretsIn(keys) }, null, 1)}\n`,
    ],
  ] as const;
  for (const [url, text] of [texts, secrets]) {
    if (process.env['TIDEMARK_WRITE_GOLDEN']) writeFileSync(url, text);
    expect(text).toBe(readFileSync(url, 'utf8'));
  }
  const golden = parseRepositoryFile(readFileSync(texts[0], 'utf8'), 'f');
  for (const secret of [PASSPHRASE, KEY_FILE]) expect(secretsIn(await unlock(golden, secret))).toEqual(secretsIn(keys));
});

describe('slots', () => {
  test('a slot added opens, one removed does not any more, and neither changes a key', async () => {
    const three = await addSlot(file, keys, other, options);
    expect(await opened(three, other)).toEqual(secretsIn(keys));
    const two = removeSlot(reread(three), keys, file.keySlots[0]!.id);
    expect(await codeOf(() => opened(two, PASSPHRASE))).toBe('WRONG_KEY');
    expect(await opened(two, other)).toEqual(secretsIn(keys));
    expect(await opened(two, KEY_FILE)).toEqual(secretsIn(keys));
  });

  test('the last one stays, one that is not there is named', async () => {
    const [first, second] = file.keySlots;
    const one = removeSlot(file, keys, first!.id);
    expect(await codeOf(() => removeSlot(one, keys, second!.id))).toBe('BAD_REQUEST');
    expect(await codeOf(() => removeSlot(one, keys, first!.id))).toBe('NOT_FOUND');
  });

  test('rotation adds a data key and keeps the others', async () => {
    const once = rotateDataKey(reread(file), keys, options);
    const twice = rotateDataKey(reread(once.file), once.keys, options);
    const again = await unlock(reread(twice.file), KEY_FILE);
    expect(secretsIn(again)).toEqual(secretsIn(twice.keys));
    expect(secretsIn(again)).toMatchObject(secretsIn(keys));
    expect(again.vault.dataKeys.map(({ id }) => id)).toEqual([1, 2, 3, 4]);
  });

  test('256 data keys and 16 slots fit the file; there are no more', async () => {
    const dataKeys = Array.from({ length: 256 }, (_, at) => ({ ...file.dataKeys[0]!, id: at + 1 }));
    const keySlots = Array.from({ length: 16 }, (_, at) => ({ ...file.keySlots[0]!, id: `000000${at + 10}` }));
    const full = reread(signRepositoryFile({ ...file, keySlots, dataKeys }, keys.vault));
    expect(await codeOf(() => rotateDataKey(full, keys, options))).toBe('BAD_REQUEST');
    expect(await codeOf(() => addSlot(full, keys, KEY_FILE, options))).toBe('BAD_REQUEST');
    const features = { ...file.features, may: Array.from({ length: 20 }, () => 'x'.repeat(4000)) };
    expect(await codeOf(() => encodeRepositoryFile({ ...full, features }))).toBe('BUG');
  });

  test('a passphrase slot costs what it should, unless asked otherwise', async () => {
    const created = await createKeys(plain, other, { random: countedRandom('x'), now: 'now' });
    expect(created.file.keySlots[0]!.kdf).toMatchObject({ name: 'scrypt', ...DEFAULT_SCRYPT });
    expect(await codeOf(() => createKeys(created.file, other, options))).toBe('BUG');
  });

  test('a passphrase is the same however its characters are composed', async () => {
    const decomposed: Secret = { kind: 'passphrase', passphrase: 'correct horse battery sta\u0308ple' };
    expect(await opened(file, decomposed)).toEqual(secretsIn(keys));
  });

  test('what opens nothing', async () => {
    const typed = newKeyFile(countedRandom('key file'));
    const wrong: Secret[] = [
      other,
      { kind: 'passphrase', passphrase: '' },
      { kind: 'passphrase', passphrase: 'x'.repeat(1025) },
      { kind: 'keyfile', content: Buffer.from(newKeyFile(countedRandom('other key file'))) },
      { kind: 'keyfile', content: Buffer.from(typed.replace(/[0-9a-f]{8}\n$/, '00000000\n')) },
      { kind: 'keyfile', content: Buffer.from(typed.slice(0, 60)) },
      { kind: 'keyfile', content: Buffer.alloc(31, 'short') },
      { kind: 'keyfile', content: Buffer.alloc(65_537, 'a key') },
    ];
    for (const secret of wrong)
      expect([secret, await codeOf(() => unlock(file, secret))]).toEqual([secret, 'WRONG_KEY']);
    const passphrase = { ...file, keySlots: file.keySlots.filter(({ kind }) => kind === 'passphrase') };
    expect(await codeOf(() => unlock(passphrase, KEY_FILE))).toBe('WRONG_KEY');
  });

  test('key files: text as typed, or at least 32 bytes of any kind; weak secrets are not taken', async () => {
    const typed = newKeyFile(countedRandom('key file')).toUpperCase().trim() + ' \r\n';
    expect(await opened(file, { kind: 'keyfile', content: Buffer.from(typed) })).toEqual(secretsIn(keys));
    const bytes: Secret = { kind: 'keyfile', content: countedRandom('bytes').bytes(32) };
    expect(await opened(await addSlot(file, keys, bytes, options), bytes)).toEqual(secretsIn(keys));
    const weak: Secret[] = [
      { kind: 'passphrase', passphrase: '7 chars' },
      { kind: 'keyfile', content: Buffer.alloc(64) },
    ];
    for (const secret of weak) expect(await codeOf(() => addSlot(file, keys, secret, options))).toBe('BAD_REQUEST');
  });
});

type Change = (copy: Record<string, never>) => void;
const at =
  (path: string, value: unknown): Change =>
  (copy) => {
    const names = path.split('.');
    const last = names.pop()!;
    let target = copy as Record<string, unknown>;
    for (const name of names) target = target[name] as Record<string, unknown>;
    target[last] = value;
  };
const changed = (change: Change): RepositoryFile => {
  const copy = structuredClone(file);
  change(copy as unknown as Record<string, never>);
  return copy;
};
/** As somebody does it who has no keys, but knows the format. */
const summed = (of: RepositoryFile): RepositoryFile => ({
  ...of,
  keyCheck: { ...of.keyCheck!, sum: keySumOf(signedTextOf(of), of.keyCheck!.mac) },
});
const flipped = (hex: string): string => `${hex.startsWith('0') ? '1' : '0'}${hex.slice(1)}`;

/** Path, new value, code with the passphrase (slot 0), code with the key file (slot 1). */
const changes: [string, unknown, string, string][] = [
  ['repository', 'other', 'TAMPERED', 'TAMPERED'],
  ['uuid', 'cd'.repeat(16), 'WRONG_KEY', 'WRONG_KEY'],
  ['createdAt', '2020', 'TAMPERED', 'TAMPERED'],
  ['generation', 1, 'TAMPERED', 'TAMPERED'],
  ['features.may', ['x'], 'TAMPERED', 'TAMPERED'],
  ['blockSizes', [262_144], 'TAMPERED', 'TAMPERED'],
  ['later', 1, 'TAMPERED', 'TAMPERED'],
  ['keySlots.0.id', '00000000', 'WRONG_KEY', 'TAMPERED'],
  ['keySlots.0.kind', 'keyfile', 'WRONG_KEY', 'TAMPERED'],
  ['keySlots.0.createdAt', '2020', 'WRONG_KEY', 'TAMPERED'],
  ['keySlots.0.nonce', flipped(file.keySlots[0]!.nonce), 'WRONG_KEY', 'TAMPERED'],
  ['keySlots.0.wrapped', flipped(file.keySlots[0]!.wrapped), 'WRONG_KEY', 'TAMPERED'],
  ['keySlots.0.kdf.name', 'argon2id', 'REPOSITORY_NEWER', 'TAMPERED'],
  ['keySlots.0.kdf.salt', '00'.repeat(16), 'WRONG_KEY', 'TAMPERED'],
  ['keySlots.0.kdf.n', 2048, 'WRONG_KEY', 'TAMPERED'],
  ['keySlots.0.kdf.r', 4, 'WRONG_KEY', 'TAMPERED'],
  ['keySlots.0.kdf.p', 2, 'WRONG_KEY', 'TAMPERED'],
  ['keySlots.0.kdf.later', 2, 'TAMPERED', 'TAMPERED'],
  ['keySlots.1.kdf.salt', '00'.repeat(16), 'TAMPERED', 'WRONG_KEY'],
  ['keySlots.1.wrapped', flipped(file.keySlots[1]!.wrapped), 'TAMPERED', 'WRONG_KEY'],
  ['keySlots', [file.keySlots[0]], 'TAMPERED', 'WRONG_KEY'],
  ['dataKeys.0.id', 0xffff_ffff, 'REPOSITORY_CORRUPT', 'REPOSITORY_CORRUPT'],
  ['dataKeys.1.id', 3, 'TAMPERED', 'TAMPERED'],
  ['dataKeys.0.nonce', flipped(file.dataKeys[0]!.nonce), 'TAMPERED', 'TAMPERED'],
  ['dataKeys.0.wrapped', flipped(file.dataKeys[0]!.wrapped), 'TAMPERED', 'TAMPERED'],
  ['dataKeys.0.createdAt', '2020', 'TAMPERED', 'TAMPERED'],
  ['dataKeys', [file.dataKeys[0]], 'TAMPERED', 'TAMPERED'],
  ['keyCheck.mac', flipped(file.keyCheck!.mac), 'TAMPERED', 'TAMPERED'],
];

describe('repository.json', () => {
  test.each(changes)('with another %s is damaged; with its sum made right as well, it is told', async (...change) => {
    const [path, value, byPassphrase, byKeyFile] = change;
    const damaged = changed(at(path, value));
    expect(await codeOf(() => reread(damaged))).toBe('REPOSITORY_CORRUPT');
    expect(await codeOf(() => opened(summed(damaged), PASSPHRASE))).toBe(byPassphrase);
    expect(await codeOf(() => opened(summed(damaged), KEY_FILE))).toBe(byKeyFile);
  });

  test.each([
    ['keyCheck.sum', flipped(file.keyCheck!.sum)],
    ['keyCheck', null],
    ['keySlots', []],
    ['dataKeys', []],
    ['features.must', []],
    ['keySlots.0.id', file.keySlots[1]!.id],
    ['keySlots.0.id', 'no id'],
    ['keySlots.0.nonce', '00'],
    ['keySlots.0.wrapped', ''],
    ['keySlots.0.kdf', null],
    ['keySlots', Array.from({ length: 17 }, () => file.keySlots[0])],
    ['dataKeys', Array.from({ length: 257 }, () => file.dataKeys[0])],
    ['dataKeys.0.id', 0],
    ['dataKeys.0.id', 2],
  ])('that cannot be is refused: %s of %j', async (path, value) => {
    const text = canonicalJson(changed(at(path, value)));
    expect(await codeOf(() => parseRepositoryFile(text, 'f'))).toBe('REPOSITORY_CORRUPT');
  });

  test('a character wrong anywhere in its text is damage, or a version that is not known', async () => {
    const text = encodeRepositoryFile(file);
    for (let position = 0; position < text.length - 1; position += 5) {
      const wrong = `${text.slice(0, position)}${text[position] === '7' ? '8' : '7'}${text.slice(position + 1)}`;
      const code = await codeOf(() => opened(parseRepositoryFile(wrong, 'f'), KEY_FILE));
      expect([position, code]).toEqual([position, expect.stringMatching(/REPOSITORY_(CORRUPT|NEWER)/)]);
    }
  });

  test.each([
    ['n over the memory', { n: 2 ** 21, r: 8 }],
    ['r over the memory', { r: 2 ** 20 }],
    ['p over the work', { p: 2 ** 14 }],
    ['n of no power of two', { n: 3000 }],
    ['n too small', { n: 512 }],
    ['n of 2^53', { n: 2 ** 53 }],
    ['r of 0', { r: 0 }],
    ['p of 1.5', { p: 1.5 }],
    ['p of no number', { p: '1' }],
    ['no salt', { salt: undefined }],
  ])('%s is refused before anything is computed', async (_, kdf) => {
    const wrong = signRepositoryFile(changed(at('keySlots.0.kdf', { ...file.keySlots[0]!.kdf, ...kdf })), keys.vault);
    const before = process.cpuUsage();
    expect(await codeOf(() => opened(wrong, PASSPHRASE))).toBe('REPOSITORY_CORRUPT');
    expect(process.cpuUsage(before).user).toBeLessThan(300_000);
    expect(await opened(wrong, KEY_FILE)).toEqual(secretsIn(keys));
  });

  test('members of later versions stay and are signed; slots of later versions do not hinder', async () => {
    const later = { ...file.keySlots[0]!, id: '00000001', kind: 'token', kdf: { name: 'pkcs11' }, more: { of: 'it' } };
    const newer = signRepositoryFile({ ...file, keySlots: [later, ...file.keySlots] }, keys.vault);
    expect(reread(newer)).toEqual(newer);
    expect(await opened(newer, PASSPHRASE)).toEqual(secretsIn(keys));
    expect((await addSlot(reread(newer), keys, KEY_FILE, options)).keySlots[0]).toEqual(later);
  });

  test('a change of it is not signed over what somebody without keys changed', async () => {
    const wrong = summed(changed(at('generation', 7)));
    expect(await codeOf(() => addSlot(wrong, keys, other, options))).toBe('TAMPERED');
    expect(await codeOf(() => removeSlot(wrong, keys, file.keySlots[0]!.id))).toBe('TAMPERED');
    expect(await codeOf(() => rotateDataKey(wrong, keys, options))).toBe('TAMPERED');
    const others = await goldenKeys('others', 'cd'.repeat(16));
    expect(await codeOf(() => removeSlot(file, others.keys, file.keySlots[0]!.id))).toBe('TAMPERED');
  });
});

test('no key shows in what is thrown, stored or printed', async () => {
  const more = await createKeys(plain, PASSPHRASE, { ...options, cost: CHEAP });
  const shown = [
    ...thrown.map((error) => `${inspect(error, { depth: 9 })} ${JSON.stringify(error)} ${(error as Error).message}`),
    encodeRepositoryFile(file),
    inspect(keys, { depth: 9, showHidden: true }),
    JSON.stringify(keys),
    inspect(more, { depth: 9 }),
  ].join('\n');
  expect(thrown.length).toBeGreaterThan(50);
  const keyFile = newKeyFile(countedRandom('key file'));
  const secrets = [...Object.values(secretsIn(keys)), ...Object.values(secretsIn(more.keys)), keyFile.slice(13, 77)];
  for (const secret of secrets) {
    const bytes = Buffer.from(secret, 'hex');
    for (const form of [secret, bytes.toString('base64'), [...bytes].join(','), [...bytes].join(', ')])
      expect(shown).not.toContain(form);
    // As inspect prints buffers.
    expect(shown).not.toContain(secret.slice(0, 20).replace(/(..)(?=.)/g, '$1 '));
  }
  expect(shown).not.toMatch(/correct horse|another passphrase/);
});
