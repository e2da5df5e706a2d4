import { spawnSync } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { openRepository } from '../../../engines/repository/open-repository.ts';
import type { Repository } from '../../../engines/repository/repository.ts';
import { openStorage } from '../../../engines/repository/storage/storage.ts';
import { stackLayout } from '../../../engines/stack/layout.ts';
import type { EncryptionConfig, RepositoryConfig } from '../../../schema/domain/configuration.ts';
import { repositoryId } from '../../../schema/domain/ids.ts';
import { KEY_FILE } from '../../../tests/fixtures/repository/keys.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { rootFolder } from '../../../setup/locate.mjs';
import { addKeyTo, listKeys, makeKeyFile, removeKeyFrom, rotateKeyOf } from '../../actions/repository-keys.ts';

let root: string;
let state: string;
let said: string[];
beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), 'tm-key-'));
  state = path.join(root, 's');
  await writeFile(at('first.key'), KEY_FILE.content, { mode: 0o600 });
  said = [];
  vi.spyOn(console, 'log').mockImplementation((text: string) => void said.push(text));
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => said.push(String(text)) > 0);
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(root, { recursive: true, force: true });
});
const at = (name: string): string => path.join(root, name);

async function configure(encryption: EncryptionConfig | null): Promise<void> {
  const { configFolder, machineFile } = stackLayout(state);
  const repository: RepositoryConfig = {
    repositoryId: repositoryId('main'),
    folder: at('repository'),
    slots: 4,
    lanes: 2,
    ...(encryption && { encryption }),
  };
  await mkdir(configFolder, { recursive: true });
  await writeFile(machineFile, JSON.stringify({ hosts: [], proxies: [], repositories: [repository] }));
}

const open = (secret: typeof KEY_FILE | null = KEY_FILE): Promise<Repository> =>
  openRepository({
    storage: openStorage({ kind: 'folder', folder: at('repository') }),
    repositoryId: repositoryId('main'),
    secret,
    indexFolder: at('index'),
    seams: testSeams(),
  });

async function json<T>(command: Promise<number>): Promise<T> {
  said = [];
  expect(await command).toBe(0);
  return JSON.parse(said.join('')) as T;
}
type Listed = { keySlots: { id: string; kind: string; kdf: { name: string } }[]; dataKeys: { id: number }[] };
const listed = (): Promise<Listed> => json<Listed>(listKeys('main', { state, json: true }));

test('the life of keys: listed, added, the old one removed, the data key rotated', async () => {
  await (await open()).close();
  await configure({ keyFile: at('first.key') });
  const before = await listed();
  expect(before).toMatchObject({
    keySlots: [{ kind: 'keyfile', kdf: { name: 'hkdf-sha256' } }],
    dataKeys: [{ id: 1 }],
  });
  expect(JSON.stringify(before)).not.toMatch(/wrapped|nonce|salt/);
  const old = before.keySlots[0]!.id;

  expect(await makeKeyFile(at('second.key'), {})).toBe(0);
  expect((await stat(at('second.key'))).mode & 0o777).toBe(0o600);
  await expect(makeKeyFile(at('second.key'), {})).rejects.toMatchObject({ code: 'TARGET_EXISTS' });
  const { keySlot } = await json<{ keySlot: { id: string } }>(
    addKeyTo('main', { state, json: true, keyFile: at('second.key') }),
  );
  await expect(removeKeyFrom('main', old, { state })).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  await configure({ keyFile: at('second.key') });
  expect(await removeKeyFrom('main', old, { state })).toBe(0);
  expect(await json(rotateKeyOf('main', { state, json: true }))).toMatchObject({ dataKey: { id: 2 } });
  expect(await listed()).toMatchObject({ keySlots: [{ id: keySlot.id }], dataKeys: [{ id: 1 }, { id: 2 }] });
  said = [];
  await listKeys('main', { state });
  expect(said.join('\n')).toMatch(new RegExp(`SLOT .*\\n${keySlot.id}  keyfile .*\\n\\ndata key 2 of 2 is in use`));
  await expect(open()).rejects.toMatchObject({ code: 'WRONG_KEY' });
  for (const name of ['first.key', 'second.key'])
    expect(said.join('\n')).not.toContain((await readFile(at(name), 'utf8')).trim());
});

test('what is asked for wrongly changes nothing, and says why', async () => {
  await (await open()).close();
  await configure({ keyFile: at('missing.key') });
  await expect(rotateKeyOf('main', { state })).rejects.toMatchObject({ code: 'KEY_MISSING' });
  await configure({ passphraseEnvironment: 'TM_TEST_NOT_SET' });
  await expect(rotateKeyOf('main', { state })).rejects.toMatchObject({ code: 'KEY_MISSING' });
  await configure({ keyFile: at('first.key') });
  await expect(rotateKeyOf('mian', { state })).rejects.toThrow(/did you mean "main"/);
  const two = { keyFile: at('first.key'), passphraseFile: at('first.key') };
  for (const given of [{}, two])
    await expect(addKeyTo('main', { state, ...given })).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  await configure(null);
  await expect(rotateKeyOf('main', { state })).rejects.toThrow(/no `encryption`/);
  expect((await listed()).dataKeys).toHaveLength(1);
  for (const folder of ['repository', 'index']) await rm(at(folder), { recursive: true });
  await (await open(null)).close();
  await listKeys('main', { state });
  expect(said.at(-1)).toBe('repository main is not encrypted');
});

test('a repository in use is changed beside its owner; a key that others can read is told', async () => {
  const repository = await open();
  await configure({ keyFile: at('first.key') });
  expect(await makeKeyFile(at('open.key'), {})).toBe(0);
  await chmod(at('open.key'), 0o644);
  const args = ['repository', 'key', 'add', 'main', '--key-file', at('open.key'), '--state', state];
  const { status, stderr, stdout } = spawnSync(path.join(rootFolder, 'cli/tidemark.mjs'), args, { encoding: 'utf8' });
  expect([status, stderr]).toEqual([
    0,
    expect.stringMatching(/^warning: .* every user of this machine, .*open\.key, 644\n$/),
  ]);
  expect(stdout).toMatch(/^slot [0-9a-f]{8} \(keyfile\) opens repository main\n$/);
  const [first, second] = (await listed()).keySlots.map(({ id }) => id);
  await configure({ keyFile: at('open.key') });
  said = [];
  expect(await rotateKeyOf('main', { state })).toBe(0);
  expect(await removeKeyFrom('main', first!, { state })).toBe(0);
  expect(said).toEqual([
    expect.stringContaining('data key 2 is for what repository main writes: a worker that runs takes it up when'),
    expect.stringContaining(`slot ${first} opens repository main no more`),
  ]);
  expect(await listed()).toMatchObject({ keySlots: [{ id: second }], dataKeys: [{ id: 1 }, { id: 2 }] });
  // The owner has written nothing back.
  await repository.close();
  expect(await listed()).toMatchObject({ keySlots: [{ id: second }], dataKeys: [{ id: 1 }, { id: 2 }] });
});
