import { appendFile, mkdtemp, open, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { restorePointId } from '../../../schema/domain/ids.ts';
import { digestOf, hexDigestOf } from '../../../schema/repository/digest.ts';
import { encodeLedgerRecord, type LedgerRecord } from '../../../schema/repository/ledger.ts';
import { openVault, plainVault } from '../../../schema/repository/vault.ts';
import { countedRandom, goldenKeys } from '../../../tests/fixtures/repository/keys.ts';
import type { Staging, StagingFile } from '../storage/staging.ts';
import { openStorage } from '../storage/storage.ts';
import { withFaults } from '../storage/with-faults.ts';
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
const frameOf = (window: number): Buffer => encodeLedgerRecord(recordOf(window));

let folder: string;
let path: string;
const owner = restorePointId('00'.repeat(16));
const opened: LedgerFile[] = [];
const lost: number[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-ledger-'));
  path = join(folder, 'ledger');
});
afterEach(async () => {
  for (const ledger of opened.splice(0)) await ledger.close();
  lost.length = 0;
  await rm(folder, { recursive: true, force: true });
});

const { keys } = await goldenKeys();
/** `step`: between the cuts that are tried. */
const kinds = [
  ['plain', plainVault, 1],
  ['encrypted', openVault(keys.vault, countedRandom('ledger')), 19],
] as const;

describe.each(kinds)('%s', (_, vault, step) => {
  async function openOne(
    staging: Staging = openStorage({ kind: 'folder', folder }).staging,
  ): Promise<{ ledger: LedgerFile; found: { window: number; offset: number }[] }> {
    const found: { window: number; offset: number }[] = [];
    const ledger = await openLedgerFile(
      { staging, name: 'ledger', vault, ledger: owner },
      {
        onRecord: (record, offset) => found.push({ window: record.firstWindow, offset }),
        onLost: (offset) => lost.push(offset),
      },
    );
    opened.push(ledger);
    return { ledger, found };
  }
  const shut = (): Promise<void> => opened.pop()!.close();

  /** The frames as they lie in a file, one after the other. */
  function sealed(...windows: number[]): Buffer[] {
    let before: Uint8Array = Buffer.alloc(0);
    return windows.map((window) => {
      const frame = Buffer.from(vault.sealFrame({ ledger: owner, before }, frameOf(window)));
      before = frame.subarray(-16);
      return frame;
    });
  }

  test('frames appended at once keep their order, are read by offset, and come back', async () => {
    const { ledger } = await openOne();
    const offsets = new Map<number, number>();
    await Promise.all(
      Array.from({ length: 300 }, (_none, window) =>
        ledger.append(frameOf(window), (offset) => offsets.set(window, offset)),
      ),
    );
    expect([...offsets.keys()]).toEqual(Array.from({ length: 300 }, (_none, window) => window));
    for (const [window, offset] of offsets) expect(await ledger.read(offset)).toEqual(recordOf(window));
    expect(await ledger.digest()).toBe(hexDigestOf(await readFile(path)));
    await shut();
    expect((await openOne()).found).toEqual([...offsets].map(([window, offset]) => ({ window, offset })));
  });

  test(
    'a torn tail, at every cut, costs the last frame, and frames follow where it was',
    { timeout: 120_000 },
    async () => {
      const frames = sealed(1, 2, 3);
      const whole = Buffer.concat(frames);
      const ends = frames.map((_frame, at) => frames.slice(0, at + 1).reduce((sum, { length }) => sum + length, 0));
      const cuts = Array.from({ length: Math.ceil(whole.length / step) }, (_none, at) => at * step);
      for (const length of new Set([...cuts, ...ends])) {
        await writeFile(path, whole.subarray(0, length));
        const { ledger, found } = await openOne();
        const kept = ends.filter((end) => end <= length);
        expect(found.map(({ window }) => window)).toEqual([1, 2, 3].slice(0, kept.length));
        expect((await stat(path)).size).toBe(kept.at(-1) ?? 0);
        await ledger.append(frameOf(9), () => undefined);
        await shut();
        const again = await openOne();
        expect(again.found.at(-1)).toEqual({ window: 9, offset: kept.at(-1) ?? 0 });
        await shut();
      }
    },
  );

  test('a damaged frame ends the ledger; a tail of anything is cut off', async () => {
    const frames = sealed(1, 2, 3);
    const whole = Buffer.concat(frames);
    const copy = Buffer.from(whole);
    copy[frames[0]!.length + 140]! ^= 1;
    await writeFile(path, copy);
    expect((await openOne()).found.map(({ window }) => window)).toEqual([1]);
    await shut();
    await writeFile(path, whole);
    await appendFile(path, Buffer.alloc(10_000, 'TMLRTMLE'));
    expect((await openOne()).found.map(({ window }) => window)).toEqual([1, 2, 3]);
    expect((await stat(path)).size).toBe(whole.length);
  });

  test('frames follow those of before a group that had no room, and the first follows an emptied ledger', async () => {
    const { staging } = openStorage({ kind: 'folder', folder });
    let isFull = false;
    const openFile: Staging['openFile'] = async (name) => {
      const file = await staging.openFile(name);
      const append = file.append.bind(file);
      file.append = (bytes) => (isFull ? Promise.reject(new Error('no room')) : append(bytes));
      return file;
    };
    const { ledger } = await openOne({ ...staging, openFile });
    const put = (window: number): Promise<void> => ledger.append(frameOf(window), () => undefined);
    await put(1);
    isFull = true;
    expect((await Promise.allSettled([put(2), put(3)])).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    isFull = false;
    await Promise.all([put(4), put(5)]);
    await shut();
    const again = await openOne();
    expect(again.found.map(({ window }) => window)).toEqual([1, 4, 5]);
    await again.ledger.empty();
    await again.ledger.append(frameOf(6), () => undefined);
    await shut();
    expect((await openOne()).found).toEqual([{ window: 6, offset: 0 }]);
  });

  describe('after a sync that failed', () => {
    /** `sync`: of the file as it is opened first. The medium loses what `sync` does to it. */
    async function openFailing(sync: (file: StagingFile) => Promise<void>): Promise<LedgerFile> {
      const storage = openStorage({ kind: 'folder', folder });
      const { staging } = withFaults(storage, [{ what: 'EIO', operation: 'sync', name: /ledger/, after: 2 }]);
      let count = 0;
      const openFile: Staging['openFile'] = async (name) => {
        const file = await staging.openFile(name);
        if ((count += 1) > 1) return file;
        return {
          ...file,
          sync: () => file.sync().catch((error: unknown) => sync(file).then(() => Promise.reject(error))),
        };
      };
      return (await openOne({ ...staging, openFile })).ledger;
    }

    test('the same ledger takes the next frames, after those that were durable', async () => {
      const ledger = await openFailing(async () => undefined);
      const offsets: number[] = [];
      const put = (window: number): Promise<void> => ledger.append(frameOf(window), (offset) => offsets.push(offset));
      await put(1);
      await expect(put(2)).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
      const read = ledger.read(0);
      await Promise.all([put(3), put(4)]);
      expect(await read).toEqual(recordOf(1));
      expect(await ledger.read(offsets[2]!)).toEqual(recordOf(4));
      expect(await ledger.digest()).toBe(hexDigestOf(await readFile(path)));
      expect(lost).toEqual([]);
      await shut();
      expect((await openOne()).found.map(({ window }) => window)).toEqual([1, 3, 4]);
    });

    test('what it could not be cut back from does not count, and what the medium lost is told', async () => {
      const ledger = await openFailing(async () => appendFile(path, sealed(1, 2)[1]!));
      await ledger.append(frameOf(1), () => undefined);
      await expect(ledger.append(frameOf(2), () => undefined)).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
      expect((await stat(path)).size).toBe(Buffer.concat(sealed(1, 2)).length);
      await ledger.append(frameOf(3), () => undefined);
      await shut();
      expect((await openOne()).found.map(({ window }) => window)).toEqual([1, 3]);
      await shut();
      await rm(path);
      const again = await openFailing(() => truncate(path, 3));
      await again.append(frameOf(1), () => undefined);
      await expect(again.append(frameOf(2), () => undefined)).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
      await again.append(frameOf(5), () => undefined);
      expect(lost).toEqual([0]);
      expect(await again.read(0)).toEqual(recordOf(5));
    });
  });

  test('reading what is not there any more says so', async () => {
    const { ledger } = await openOne();
    await ledger.append(frameOf(1), () => undefined);
    await expect(ledger.read(7)).rejects.toMatchObject({ code: 'REPOSITORY_CORRUPT' });
    const handle = await open(path, 'r+');
    await handle.write(Buffer.of(0xff), 0, 1, 100);
    await handle.close();
    await expect(ledger.read(0)).rejects.toMatchObject({ code: 'REPOSITORY_CORRUPT' });
    await truncate(path, 0);
    await expect(ledger.digest()).rejects.toMatchObject({ code: 'REPOSITORY_CORRUPT' });
  });
});
