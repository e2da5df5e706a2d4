import { describe, expect, test } from 'vitest';
import type { Clock } from '../../../schema/domain/seams.ts';
import { FaultyDisk } from '../../../tests/fixtures/repository/faulty-disk.ts';
import { createMemoryStore, type Objects } from '../../../tests/fixtures/repository/memory-store.ts';
import { storageContract } from './contract.ts';
import { openStorage, type Storage } from './storage.ts';
import { type StorageFault, withFaults } from './with-faults.ts';
import { withMetrics } from './with-metrics.ts';
import { withRetry } from './with-retry.ts';
import { withThrottle } from './with-throttle.ts';

/** Sleeping is all that takes time. */
function createFakeClock(): Clock & { slept: number[] } {
  let nowMs = 0;
  const slept: number[] = [];
  return {
    slept,
    now: () => nowMs,
    monotonic: () => nowMs,
    sleep: async (durationMs) => {
      slept.push(durationMs);
      nowMs += durationMs;
    },
  };
}

const onDisk = (disk: FaultyDisk): Storage => openStorage({ kind: 'folder', folder: '/srv/r' }, disk.fileSystem);
const noMeter = { add: () => undefined };

const decorators: [string, (storage: Storage) => Storage][] = [
  ['nothing', (storage) => storage],
  ['withRetry', (storage) => withRetry(storage, { clock: createFakeClock() })],
  ['withThrottle', (storage) => withThrottle(storage, { bytesPerSecond: 1000, clock: createFakeClock() })],
  ['withMetrics', (storage) => withMetrics(storage, { clock: createFakeClock(), meter: noMeter })],
  ['withFaults', (storage) => withFaults(storage, [])],
];

for (const [name, decorate] of decorators) {
  storageContract(`a local folder on the disk of the crash tests, through ${name}`, async () => {
    const disk = new FaultyDisk();
    return {
      storage: decorate(onDisk(disk)),
      again: () => decorate(onDisk(disk)),
      failSync: () => disk.fail({ call: 'sync', what: 'EIO', times: 1 }),
      close: async () => undefined,
    };
  });
}

storageContract('a local folder whose syncs are made to fail', async () => {
  const disk = new FaultyDisk();
  return {
    storage: withFaults(onDisk(disk), [{ what: 'EIO', operation: 'sync', name: /^p\/1$/, after: 1 }]),
    again: () => onDisk(disk),
    failSync: () => undefined,
    close: async () => undefined,
  };
});

storageContract('a local folder before an object store', async () => {
  const disk = new FaultyDisk();
  const objects: Objects = new Map();
  const open = (): Storage => {
    const { staging } = onDisk(disk);
    return { staging, store: createMemoryStore(objects, staging) };
  };
  const failSync = (): void => disk.fail({ call: 'sync', what: 'EIO', times: 1 });
  return { storage: open(), again: open, failSync, close: async () => undefined };
});

describe('withRetry', () => {
  const retried = async (plan: StorageFault[]) => {
    const clock = createFakeClock();
    const storage = withRetry(withFaults(onDisk(new FaultyDisk()), plan), { clock, delayMs: 10 });
    await storage.staging.prepare();
    return { ...storage, clock };
  };
  const codes = (code: string) => ({ code }) as Record<string, unknown>;

  test('says a call again that may succeed, later each time, and not for ever', async () => {
    const { staging, clock } = await retried([
      { what: 'EIO', operation: 'replace', times: 3 },
      { what: 'EIO', operation: 'readText', times: 4 },
    ]);
    await staging.replace('a', 'text');
    expect(clock.slept).toEqual([10, 20, 40]);
    await expect(staging.readText('a', 9)).rejects.toMatchObject(codes('STORAGE_ERROR'));
    expect(clock.slept).toHaveLength(6);
    expect(await staging.readText('a', 9)).toBe('text');
  });

  test('never a sync, and nothing on a full disk', async () => {
    const { staging, clock } = await retried([
      { what: 'EIO', operation: 'sync' },
      { what: 'ENOSPC', operation: 'replace' },
    ]);
    const file = staging.createSync('a');
    await expect(file.sync()).rejects.toMatchObject(codes('STORAGE_ERROR'));
    await expect(staging.replace('b', 'x')).rejects.toMatchObject(codes('REPOSITORY_FULL'));
    expect(clock.slept).toEqual([]);
  });

  test('knows its own text again when the try that failed had put it, and no other', async () => {
    const late = { what: 'EIO', operation: 'putIfAbsent', late: true } as const;
    for (const half of ['staging', 'store'] as const) {
      const storage = await retried([late, { ...late, after: 0 }]);
      expect(await storage[half].putIfAbsent('m/1', 'mine')).toBe(true);
      expect(await storage[half].readText('m/1', 9)).toBe('mine');
      expect(await storage[half].putIfAbsent('m/1', 'other')).toBe(false);
    }
  });
});

describe('withThrottle', () => {
  test('holds reads and writes to the rate; what a lane appended is waited for at its sync', async () => {
    const clock = createFakeClock();
    const { staging } = withThrottle(onDisk(new FaultyDisk()), { bytesPerSecond: 1000, clock });
    await staging.prepare();
    const file = staging.createSync('a');
    for (let part = 0; part < 3; part += 1) file.appendSync(Buffer.alloc(500));
    expect(clock.slept).toEqual([]);
    await file.sync();
    expect(clock.now()).toBe(1500);
    const open = (await staging.open('a'))!;
    await Promise.all([open.read(Buffer.alloc(1000), 0), open.read(Buffer.alloc(500), 0)]);
    await staging.replace('b', 'x');
    expect(clock.now()).toBeGreaterThanOrEqual(3000);
    await staging.list('');
    expect(clock.now()).toBeLessThan(4000);
  });
});

describe('withMetrics', () => {
  test('counts calls, bytes and time by what became of them', async () => {
    const counted = new Map<string, number>();
    const meter = {
      add: (name: string, amount: number, labels: Record<string, string> = {}) => {
        const key = [name, labels['half'], labels['operation'], labels['outcome']].join(' ');
        counted.set(key, (counted.get(key) ?? 0) + amount);
      },
    };
    const clock = createFakeClock();
    const faulty = withFaults(onDisk(new FaultyDisk()), [{ what: 'ENOSPC', operation: 'append' }]);
    const { staging, store } = withMetrics(withThrottle(faulty, { bytesPerSecond: 1000, clock }), { clock, meter });
    await staging.prepare();
    const file = staging.createSync('open/1');
    file.appendSync(Buffer.alloc(70), Buffer.alloc(30));
    await expect(file.append(Buffer.alloc(5))).rejects.toMatchObject({ code: 'REPOSITORY_FULL' });
    await file.sync();
    await file.finish();
    await store.put('packs/1', 'open/1');
    const stored = (await store.open('packs/1'))!;
    await stored.read(Buffer.alloc(60), 0);
    await stored.read(Buffer.alloc(60), 60);
    const expected = {
      'storage_calls staging appendSync ok': 1,
      'storage_bytes staging appendSync ok': 100,
      'storage_calls staging append REPOSITORY_FULL': 1,
      'storage_calls store put ok': 1,
      'storage_calls store read ok': 2,
      'storage_bytes store read ok': 120,
    };
    expect(Object.fromEntries(counted)).toMatchObject(expected);
    expect(counted.has('storage_bytes staging append REPOSITORY_FULL')).toBe(false);
    expect(counted.get('storage_ms staging append REPOSITORY_FULL')).toBe(100);
  });
});

describe('withFaults', () => {
  test('fails the calls of the plan only, as a file system would; reads may come short', async () => {
    const { staging, store } = withFaults(onDisk(new FaultyDisk()), [
      { what: 'ENOSPC', operation: 'putIfAbsent', half: 'store', after: 1 },
      { what: 'short', operation: 'read', name: /^a$/ },
      { what: 'EIO', operation: 'appendSync', name: /^open/ },
    ]);
    await staging.prepare();
    expect(await staging.putIfAbsent('a', '12345678')).toBe(true);
    expect(await store.putIfAbsent('m/1', 'x')).toBe(true);
    await expect(store.putIfAbsent('m/2', 'x')).rejects.toMatchObject({
      code: 'REPOSITORY_FULL',
      details: { path: '/srv/r/m/2', errno: 'ENOSPC' },
    });
    expect(await store.putIfAbsent('m/2', 'x')).toBe(true);
    const file = (await staging.open('a'))!;
    expect([await file.read(Buffer.alloc(8), 0), await file.read(Buffer.alloc(8), 0)]).toEqual([4, 8]);
    const open = staging.createSync('open/1');
    expect(() => open.appendSync(Buffer.alloc(1))).toThrow(/EIO as planned/);
    expect([open.appendSync(Buffer.alloc(1)), open.isBroken()]).toEqual([0, false]);
  });
});
