import { appendFile, mkdtemp, open, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { restorePointId } from '../../../schema/domain/ids.ts';
import { digestOf, hexDigestOf } from '../../../schema/repository/digest.ts';
import { encodeLedgerRecord, type LedgerRecord } from '../../../schema/repository/ledger.ts';
import { plainVault } from '../../../schema/repository/vault.ts';
import { openStorage } from '../storage/storage.ts';
import { openLedgerFile, type LedgerFile } from './ledger-file.ts';

const none = { notReadBytes: 0, unallocatedBytes: 0, zeroBytes: 0, dataBytes: 0 };
const recordOf = (window: number): LedgerRecord => ({
  kind: 'window',
  disk: 0,
  binding: 1,
  fence: 1,
  firstWindow: window,
  windowCount: 1,
  declared: none,
  unchanged: none,
  entries: Array.from({ length: window % 5 }, (_, block) => ({
    block,
    kind: 'data',
    digest: digestOf(Buffer.of(window)),
  })),
});

let folder: string;
let path: string;
const vault = plainVault;
const owner = restorePointId('00'.repeat(16));
const opened: LedgerFile[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-ledger-'));
  path = join(folder, 'ledger');
});
afterEach(async () => {
  for (const ledger of opened.splice(0)) await ledger.close();
  await rm(folder, { recursive: true, force: true });
});

async function openOne(): Promise<{ ledger: LedgerFile; found: { window: number; offset: number }[] }> {
  const found: { window: number; offset: number }[] = [];
  const { staging } = openStorage({ kind: 'folder', folder });
  const ledger = await openLedgerFile({ staging, name: 'ledger', vault, ledger: owner }, (record, offset) =>
    found.push({ window: record.firstWindow, offset }),
  );
  opened.push(ledger);
  return { ledger, found };
}
const shut = (): Promise<void> => opened.pop()!.close();

test('frames appended at once keep their order, are read by offset, and come back', async () => {
  const { ledger } = await openOne();
  const offsets = new Map<number, number>();
  await Promise.all(
    Array.from({ length: 300 }, (_, window) =>
      ledger.append(encodeLedgerRecord(recordOf(window)), (offset) => offsets.set(window, offset)),
    ),
  );
  expect([...offsets.keys()]).toEqual(Array.from({ length: 300 }, (_, window) => window));
  for (const [window, offset] of offsets) expect(await ledger.read(offset)).toEqual(recordOf(window));
  expect(await ledger.digest()).toBe(hexDigestOf(await readFile(path)));
  await shut();
  expect((await openOne()).found).toEqual([...offsets].map(([window, offset]) => ({ window, offset })));
});

test(
  'a torn tail, at every cut, costs the last frame, and frames follow where it was',
  { timeout: 120_000 },
  async () => {
    const frames = [1, 2, 3].map((window) => encodeLedgerRecord(recordOf(window)));
    const whole = Buffer.concat(frames);
    const ends = [frames[0]!.length, frames[0]!.length + frames[1]!.length, whole.length];
    for (let length = 0; length <= whole.length; length += 1) {
      await writeFile(path, whole.subarray(0, length));
      const { ledger, found } = await openOne();
      const kept = ends.filter((end) => end <= length);
      expect(found.map(({ window }) => window)).toEqual([1, 2, 3].slice(0, kept.length));
      expect((await stat(path)).size).toBe(kept.at(-1) ?? 0);
      await ledger.append(encodeLedgerRecord(recordOf(9)), () => undefined);
      await shut();
      const again = await openOne();
      expect(again.found.at(-1)).toEqual({ window: 9, offset: kept.at(-1) ?? 0 });
      await shut();
    }
  },
);

test('a damaged frame ends the ledger; a tail of anything is cut off', async () => {
  const whole = Buffer.concat([1, 2, 3].map((window) => encodeLedgerRecord(recordOf(window))));
  const copy = Buffer.from(whole);
  copy[encodeLedgerRecord(recordOf(1)).length + 140]! ^= 1;
  await writeFile(path, copy);
  expect((await openOne()).found.map(({ window }) => window)).toEqual([1]);
  await shut();
  await writeFile(path, whole);
  await appendFile(path, Buffer.alloc(10_000, 'TMLR'));
  expect((await openOne()).found.map(({ window }) => window)).toEqual([1, 2, 3]);
  expect((await stat(path)).size).toBe(whole.length);
});

test('reading what is not there any more says so', async () => {
  const { ledger } = await openOne();
  await ledger.append(encodeLedgerRecord(recordOf(1)), () => undefined);
  await expect(ledger.read(7)).rejects.toMatchObject({ code: 'REPOSITORY_CORRUPT' });
  const handle = await open(path, 'r+');
  await handle.write(Buffer.of(0xff), 0, 1, 100);
  await handle.close();
  await expect(ledger.read(0)).rejects.toMatchObject({ code: 'REPOSITORY_CORRUPT' });
  await truncate(path, 0);
  await expect(ledger.digest()).rejects.toMatchObject({ code: 'REPOSITORY_CORRUPT' });
});
