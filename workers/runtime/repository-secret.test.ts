import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { EncryptionConfig } from '../../schema/domain/configuration.ts';
import type { Log } from '../../schema/domain/seams.ts';
import type { Secret } from '../../schema/repository/secrets.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { readSecret } from './repository-secret.ts';

let folder: string;
let warnings: unknown[];
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'tm-secret-'));
  warnings = [];
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const read = (of: EncryptionConfig, environment: Record<string, string> = {}): Promise<Secret> => {
  const log: Log = { ...testSeams().log, warn: (_message, fields) => void warnings.push(fields) };
  return readSecret(of, { environment, log });
};
async function fileOf(content: string | Uint8Array, mode = 0o600): Promise<string> {
  const file = path.join(folder, 'secret');
  await rm(file, { force: true });
  await writeFile(file, content);
  await chmod(file, mode);
  return file;
}

test.each([
  ['a word', 'a word'],
  ['a word\n', 'a word'],
  ['a word\r\n', 'a word'],
  ['a word\n\n', 'a word\n'],
  [' a word \r', ' a word \r'],
  ['\n', ''],
])('of a passphrase file one line end does not count: %j', async (content, passphrase) => {
  expect(await read({ passphraseFile: await fileOf(content) })).toEqual({ kind: 'passphrase', passphrase });
  expect(warnings).toEqual([]);
});

test('a key file is taken as it is, also when it is too long, which who uses it says', async () => {
  const content = Buffer.alloc(70_000, 'key\n');
  const secret = (await read({ keyFile: await fileOf(content) })) as Extract<Secret, { kind: 'keyfile' }>;
  expect(secret.kind).toBe('keyfile');
  expect(Buffer.from(secret.content).equals(content.subarray(0, 65_537))).toBe(true);
});

test('a variable is taken as it is; an empty one is none', async () => {
  expect(await read({ passphraseEnvironment: 'P' }, { P: 'a word\n' })).toEqual({
    kind: 'passphrase',
    passphrase: 'a word\n',
  });
  for (const environment of [{}, { P: '' }] as Record<string, string>[])
    await expect(read({ passphraseEnvironment: 'P' }, environment)).rejects.toMatchObject({
      code: 'KEY_MISSING',
      details: { variable: 'P' },
    });
});

test('files that others can use are told; what is missing or no text is refused, without what is in it', async () => {
  for (const mode of [0o604, 0o602]) await read({ keyFile: await fileOf('k'.repeat(40), mode) });
  await read({ keyFile: await fileOf('k'.repeat(40), 0o640) });
  const file = path.join(folder, 'secret');
  expect(warnings).toEqual([
    { path: file, mode: '604' },
    { path: file, mode: '602' },
  ]);
  const latin = Buffer.from('gehe\xfcm', 'latin1');
  const refused = await read({ passphraseFile: await fileOf(latin) }).catch((error: unknown) => error);
  expect(refused).toMatchObject({ code: 'WRONG_KEY' });
  expect(String(refused)).not.toContain('gehe');
  for (const missing of [path.join(folder, 'none'), folder])
    await expect(read({ passphraseFile: missing })).rejects.toMatchObject({
      code: 'KEY_MISSING',
      message: expect.stringMatching(/ENOENT|EISDIR/) as string,
    });
});
