import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { createPayloadCodec, loadPayloadCodec, parsePayloadKeys, type Payload } from './payload-codec.ts';

const [one, two] = [`k1 ${'11'.repeat(32)}`, `k2 ${'22'.repeat(32)}`];
const codecOf = (...lines: string[]) => createPayloadCodec(parsePayloadKeys(lines.join('\n'), 'test'));
const payload = (word: string): Payload => ({
  metadata: { encoding: Buffer.from('json/plain') },
  data: Buffer.from(`"${word}"`),
});
const wordOf = ({ data }: Payload): string => Buffer.from(data!).toString();

test('nothing of a payload is seen, and it comes back as it was; after a rotation old and new ones do', async () => {
  const before = codecOf(one);
  const [hidden] = await before.encode([payload('a-secret-word')]);
  expect(Buffer.from(hidden!.data!).includes('secret')).toBe(false);
  expect(Object.values(hidden!.metadata!).map(String)).toEqual(['binary/encrypted', 'aes-256-gcm', 'k1']);
  const after = codecOf(two, one);
  const [newer] = await after.encode([payload('newer')]);
  const plain = payload('of before');
  const [a, b, c] = await after.decode([hidden!, newer!, plain]);
  expect([a, b, c].map((each) => wordOf(each!))).toEqual(['"a-secret-word"', '"newer"', '"of before"']);
  expect(String(a!.metadata!['encoding'])).toBe('json/plain');
  await expect(before.decode([newer!])).rejects.toMatchObject({ code: 'PAYLOAD_KEY_MISSING' });
});

test('a payload that somebody changed, or cut off, is found', async () => {
  const codec = codecOf(one);
  const [hidden] = await codec.encode([payload('x')]);
  for (const change of [(data: Buffer) => (data[14]! ^= 1), (data: Buffer) => data.fill(0, 0, 12)]) {
    const data = Buffer.from(hidden!.data!);
    change(data);
    await expect(codec.decode([{ ...hidden!, data }])).rejects.toMatchObject({ code: 'TAMPERED' });
  }
  await expect(codec.decode([{ ...hidden!, data: Buffer.alloc(5) }])).rejects.toMatchObject({ code: 'TAMPERED' });
});

test('keys stand in a file that nobody else can use, or in the environment', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'td-pk-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, 'keys');
  expect(await loadPayloadCodec(file, {})).toBeNull();
  await writeFile(file, `# first encrypts\n${one}\n\n${two}\n`, { mode: 0o600 });
  expect(await loadPayloadCodec(file, {})).not.toBeNull();
  expect(await loadPayloadCodec('/nowhere', { TIDEMARK_PAYLOAD_KEYS: one })).not.toBeNull();
  await expect(loadPayloadCodec(file, { TIDEMARK_PAYLOAD_KEYS: '' })).rejects.toThrow(/PAYLOAD_KEYS has no key/);
  for (const empty of ['', '# first encrypts\n']) {
    await writeFile(file, empty);
    await expect(loadPayloadCodec(file, {})).rejects.toMatchObject({ code: 'BAD_CONFIG' });
  }
  await chmod(file, 0o644);
  await expect(loadPayloadCodec(file, {})).rejects.toMatchObject({ code: 'BAD_CONFIG' });
  expect(() => parsePayloadKeys(`${one}\nk2 abcd`, 'keys')).toThrow(/^keys, line 2: expected/);
  expect(() => parsePayloadKeys(`${one}\n${one}`, 'keys')).toThrow('line 2');
});
