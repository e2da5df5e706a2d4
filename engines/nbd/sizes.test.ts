/** Exports of odd sizes, larger than 4 GiB, and a server that is stopped: with a daemon of their own each. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { connectNbd } from './client.ts';
import { allocationFlag, BASE_ALLOCATION } from './codec.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
let folder: string;
let pid: number;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-nbds-'));
  pid = 0;
});
afterEach(async () => {
  if (pid > 0) process.kill(pid, 'SIGKILL');
  await rm(folder, { recursive: true });
});

async function serve(driver: 'raw' | 'qcow2', file: string): Promise<{ unix: string }> {
  const unix = join(folder, 'n.sock');
  const blockdev = (node: object): string[] => ['--blockdev', JSON.stringify(node)];
  execFileSync('qemu-storage-daemon', [
    '--daemonize',
    ...blockdev({ driver: 'file', 'node-name': 'f', filename: file }),
    ...blockdev({ driver, 'node-name': 'd', file: 'f' }),
    '--nbd-server',
    JSON.stringify({ addr: { type: 'unix', path: unix }, 'max-connections': 4 }),
    '--export',
    JSON.stringify({ type: 'nbd', id: 'e', 'node-name': 'd', name: 'd', writable: true }),
    '--pidfile',
    join(folder, 'pid'),
  ]);
  pid = Number(await readFile(join(folder, 'pid'), 'utf8'));
  return { unix };
}

test.each([0, 1, 511, 513, 64 * KIB + 1, 3 * MIB + 1000])(
  'a raw image of %i bytes is read whole',
  async (sizeBytes) => {
    const file = join(folder, 'd.raw');
    const bytes = Buffer.alloc(sizeBytes, 'odd');
    await writeFile(file, bytes);
    const client = await connectNbd({ at: await serve('raw', file), export: 'd', contexts: [BASE_ALLOCATION] });
    expect(client.sizeBytes).toBe(Math.ceil(sizeBytes / 512) * 512);
    let covered = 0;
    for await (const extent of client.status(BASE_ALLOCATION, { offset: 0, length: sizeBytes })) {
      expect(extent.offset).toBe(covered);
      covered += extent.length;
    }
    expect(covered).toBe(sizeBytes);
    const into = Buffer.alloc(sizeBytes);
    await client.read({ offset: 0, length: sizeBytes }, into);
    expect(into.equals(bytes)).toBe(true);
    if (sizeBytes > 1) {
      const tail = Buffer.alloc(Math.floor(sizeBytes / 2));
      await client.read({ offset: sizeBytes - tail.length, length: tail.length }, tail);
      expect(tail.equals(bytes.subarray(sizeBytes - tail.length))).toBe(true);
    }
    await client.close();
  },
);

test('holes and data are found on a disk far larger than a request may tell', async () => {
  const file = join(folder, 'd.qcow2');
  const sizeBytes = 40 * GIB + 512;
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', file, String(sizeBytes)]);
  const data = [
    [4 * GIB - 64 * KIB, 128 * KIB],
    [20 * GIB, 64 * KIB],
  ] as const;
  const writes = data.map(([offset, length]) => `write -P 7 ${offset} ${length}`);
  const all = [...writes, `write -z ${8 * GIB} 1M`];
  execFileSync('qemu-io', ['-f', 'qcow2', ...all.flatMap((one) => ['-c', one]), file]);
  const client = await connectNbd({ at: await serve('qcow2', file), export: 'd', contexts: [BASE_ALLOCATION] });
  const found: [number, number][] = [];
  let covered = 0;
  for await (const { offset, length, flags } of client.status(BASE_ALLOCATION, { offset: 0, length: sizeBytes })) {
    expect(offset).toBe(covered);
    covered += length;
    if ((flags & allocationFlag.zero) === 0) found.push([offset, length]);
  }
  expect(covered).toBe(sizeBytes);
  expect(found).toEqual(data);
  await client.close();
});

test('a server that is stopped does not hold the end of a connection', async () => {
  const file = join(folder, 'd.raw');
  await writeFile(file, '');
  await truncate(file, 64 * MIB);
  const client = await connectNbd({ at: await serve('raw', file), export: 'd' });
  process.kill(pid, 'SIGSTOP');
  const write = client.write(0, Buffer.alloc(32 * MIB, 1));
  const lost = expect(write).rejects.toMatchObject({ code: 'UNREACHABLE' });
  await client.close();
  await lost;
});
