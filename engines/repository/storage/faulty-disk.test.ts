/** The disk of the crash tests: what they prove is worth as much as it is hard. */
import { describe, expect, test } from 'vitest';
import { FaultyDisk } from '../../../tests/fixtures/repository/faulty-disk.ts';
import type { OpenFlags } from './file-system.ts';

function write(disk: FaultyDisk, path: string, text: string, flags: OpenFlags = 'wx+', at = 0): number {
  const fd = disk.fileSystem.openSync(path, flags);
  const bytes = Buffer.from(text);
  disk.fileSystem.writeSync(fd, bytes, 0, bytes.length, at);
  return fd;
}
const sync = (disk: FaultyDisk, path: string): Promise<void> =>
  disk.fileSystem.fsync(disk.fileSystem.openSync(path, 'r'));
const textsOf = (disk: FaultyDisk): Record<string, string> =>
  Object.fromEntries([...disk.files()].map(([path, content]) => [path, content.toString()]));

/** What a hundred crashes leave, each outcome once. */
const outcomes = (disk: FaultyDisk, of: (after: FaultyDisk) => string): string[] =>
  [...new Set(Array.from({ length: 100 }, (_, seed) => of(disk.afterCrash(seed))))].sort();

describe('a crash', () => {
  test('keeps what was synced, name and content; of the rest any part, or nothing', async () => {
    const disk = new FaultyDisk();
    const fd = write(disk, '/a', 'x'.repeat(1024));
    const names = (after: FaultyDisk): string => [...after.files().keys()].join();
    expect(outcomes(disk, names)).toEqual(['', '/a']);
    expect(textsOf(disk.afterCrash('nothing'))).toEqual({});
    await disk.fileSystem.fsync(fd);
    expect(textsOf(disk.afterCrash('nothing'))).toEqual({});
    await sync(disk, '/');
    expect(textsOf(disk.afterCrash('nothing'))).toEqual({ '/a': 'x'.repeat(1024) });
    disk.fileSystem.writeSync(fd, Buffer.alloc(1024, 'y'), 0, 1024, 0);
    const content = (after: FaultyDisk): string => after.files().get('/a')!.toString();
    const half = (a: string, b: string): string => a.repeat(512) + b.repeat(512);
    expect(outcomes(disk, content)).toEqual([half('x', 'x'), half('x', 'y'), half('y', 'x'), half('y', 'y')]);
    expect(content(disk.afterKill())).toBe(half('y', 'y'));
  });

  test('a file that grew may have its length without its bytes; what was cut may be back', async () => {
    const disk = new FaultyDisk();
    const fd = write(disk, '/a', 'kept');
    await disk.fileSystem.fsync(fd);
    await sync(disk, '/');
    disk.fileSystem.ftruncateSync(fd, 2);
    disk.fileSystem.writeSync(fd, Buffer.alloc(1100, 'z'), 0, 1100, 2);
    const lengths = outcomes(disk, (after) => String(after.files().get('/a')!.length));
    expect(lengths).toEqual(expect.arrayContaining(['2', '4', '512', '1024', '1102']));
    const zeros = outcomes(disk, (after) => String(after.files().get('/a')!.subarray(4, 512).includes(0)));
    expect(zeros).toEqual(['false', 'true']);
  });

  test('a rename leaves the old name, the new one or both; a file is in a folder only when that is durable', async () => {
    const disk = new FaultyDisk();
    const { fileSystem } = disk;
    await fileSystem.mkdir('/d');
    await fileSystem.fsync(write(disk, '/a', 'a'));
    await sync(disk, '/');
    await fileSystem.rename('/a', '/d/b');
    const names = (after: FaultyDisk): string => [...after.files().keys()].sort().join();
    expect(outcomes(disk, names)).toEqual(['/a', '/a,/d/b', '/d/b']);
    await sync(disk, '/d');
    expect(outcomes(disk, names)).toEqual(['/a,/d/b', '/d/b']);
    await fileSystem.mkdir('/e');
    await fileSystem.fsync(write(disk, '/e/c', 'c'));
    await sync(disk, '/e');
    expect(names(disk.afterCrash('nothing'))).not.toContain('/e/c');
    await sync(disk, '/');
    expect(names(disk.afterCrash('nothing'))).toBe('/d/b,/e/c');
  });

  test('at a point: that call and all after it fail, and what it did is as uncertain as the rest', async () => {
    const disk = new FaultyDisk();
    const fd = write(disk, '/a', 'a');
    await sync(disk, '/');
    expect(disk.points).toBe(3);
    disk.crashAt(4);
    await expect(disk.fileSystem.fsync(fd)).rejects.toMatchObject({ code: 'ECRASHED' });
    await expect(disk.fileSystem.readdir('/')).rejects.toMatchObject({ code: 'ECRASHED' });
    expect(outcomes(disk, (after) => after.files().get('/a')!.toString())).toEqual(expect.arrayContaining(['', 'a']));
    expect(textsOf(disk.afterCrash('nothing'))).toEqual({ '/a': '' });
  });
});

describe('a fault', () => {
  test('of a sync: what was not durable is gone for good, but is read until the crash', async () => {
    const disk = new FaultyDisk();
    const fd = write(disk, '/a', 'kept');
    await disk.fileSystem.fsync(fd);
    await sync(disk, '/');
    disk.fileSystem.writeSync(fd, Buffer.from('lost'), 0, 4, 4);
    disk.fail({ call: 'sync', what: 'EIO', times: 1 });
    await expect(disk.fileSystem.fsync(fd)).rejects.toMatchObject({ code: 'EIO' });
    await disk.fileSystem.fsync(fd);
    expect(textsOf(disk)).toEqual({ '/a': 'keptlost' });
    expect(textsOf(disk.afterKill())).toEqual({ '/a': 'keptlost' });
    expect(textsOf(disk.afterCrash('nothing'))).toEqual({ '/a': 'kept' });
    // The length may be known.
    const left = outcomes(disk, (after) => after.files().get('/a')!.toString());
    expect(left.filter((text) => !text.startsWith('kept') || text === 'keptlost')).toEqual([]);
  });

  test('of room, of reads and of single calls, as planned', async () => {
    const disk = new FaultyDisk();
    const { fileSystem } = disk;
    disk.setRoom(6);
    const fd = write(disk, '/a', '12345678');
    expect(textsOf(disk)).toEqual({ '/a': '123456' });
    expect(() => fileSystem.writeSync(fd, Buffer.from('x'), 0, 1, 6)).toThrow(/ENOSPC/);
    expect([fileSystem.writeSync(fd, Buffer.from('x'), 0, 1, 5), await fileSystem.freeBytes('/')]).toEqual([1, 0]);
    disk.fail({ call: 'read', what: 'short', times: 1 });
    disk.fail({ call: 'rename', what: 'EACCES', path: /c$/ });
    const into = Buffer.alloc(6);
    expect([await fileSystem.read(fd, into, 0, 6, 0), await fileSystem.read(fd, into, 0, 6, 0)]).toEqual([3, 6]);
    await fileSystem.rename('/a', '/b');
    await expect(fileSystem.rename('/b', '/c')).rejects.toMatchObject({ code: 'EACCES' });
    disk.mend();
    await fileSystem.rename('/b', '/c');
  });
});
