import { execFileSync } from 'node:child_process';
import { createServer } from 'node:net';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectNbd } from './client.ts';
import { BASE_ALLOCATION, DIRTY_FLAG, NBD_MAGIC, OPTION_MAGIC, Pump, take } from './codec.ts';

const MIB = 1024 * 1024;
const KIB = 1024;
type NbdinfoExtent = { offset: number; length: number; type: number };

let folder: string;
let image: string;
let flat: Buffer;
let daemonPid: number;
const at = (): { unix: string } => ({ unix: join(folder, 'n.sock') });

/** A qcow2 with holes, data, explicit zeros and a frozen bitmap, and a scratch image, behind a real daemon. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-nbd-'));
  image = join(folder, 'd.qcow2');
  const io = (...commands: string[]): void => {
    execFileSync('qemu-io', ['-f', 'qcow2', ...commands.flatMap((one) => ['-c', one]), image]);
  };
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '96M']);
  io('write -P 0x11 1M 40M', 'write -z 8M 1M');
  execFileSync('qemu-img', ['bitmap', '--add', '-g', '65536', image, 'b1']);
  io('write -P 0x22 2M 64k', 'write -P 0x33 90M 200k', 'write -z 30M 64k');
  execFileSync('qemu-img', ['bitmap', '--disable', image, 'b1']);
  execFileSync('qemu-img', ['convert', '-O', 'raw', image, join(folder, 'flat.raw')]);
  flat = await readFile(join(folder, 'flat.raw'));
  execFileSync('qemu-img', ['create', '-q', '-f', 'raw', join(folder, 'w.raw'), '8M']);
  const blockdev = (node: object): string[] => ['--blockdev', JSON.stringify(node)];
  const words = [
    ...blockdev({ driver: 'file', 'node-name': 'df', filename: image, 'read-only': true }),
    ...blockdev({ driver: 'qcow2', 'node-name': 'd', file: 'df', 'read-only': true }),
    ...blockdev({ driver: 'file', 'node-name': 'w', filename: join(folder, 'w.raw'), discard: 'unmap' }),
    '--nbd-server',
    `addr.type=unix,addr.path=${at().unix},max-connections=8`,
    '--export',
    'nbd,id=e0,node-name=d,name=d,writable=off,bitmaps.0=b1',
    '--export',
    'nbd,id=e1,node-name=w,name=w,writable=on',
    '--pidfile',
    join(folder, 'pid'),
  ];
  execFileSync('qemu-storage-daemon', ['--daemonize', ...words], { stdio: 'ignore' });
  daemonPid = Number(await readFile(join(folder, 'pid'), 'utf8'));
});

afterAll(async () => {
  process.kill(daemonPid);
  await rm(folder, { recursive: true });
});

function nbdinfo(context: string): NbdinfoExtent[] {
  const uri = `nbd+unix:///d?socket=${at().unix}`;
  const text = execFileSync('nbdinfo', ['--json', `--map=${context}`, uri], { encoding: 'utf8' });
  return JSON.parse(text) as NbdinfoExtent[];
}

describe('NBD client against qemu-storage-daemon', () => {
  it.each([BASE_ALLOCATION, 'qemu:dirty-bitmap:b1'])('reports %s as nbdinfo does', async (context) => {
    const client = await connectNbd({ at: at(), export: 'd', contexts: [BASE_ALLOCATION, 'qemu:dirty-bitmap:b1'] });
    const seen: NbdinfoExtent[] = [];
    for await (const { offset, length, flags } of client.status(context, { offset: 0, length: client.sizeBytes }))
      seen.push({ offset, length, type: flags });
    await client.close();
    expect(seen).toEqual(nbdinfo(context).map(({ offset, length, type }) => ({ offset, length, type })));
    expect(seen.length).toBeGreaterThan(3);
  });

  it('covers a part exactly, also across extents', async () => {
    const client = await connectNbd({ at: at(), export: 'd', contexts: ['qemu:dirty-bitmap:b1'] });
    const dirty = [];
    for await (const extent of client.status('qemu:dirty-bitmap:b1', { offset: 2 * MIB + 4 * KIB, length: 40 * MIB }))
      if (extent.flags & DIRTY_FLAG) dirty.push([extent.offset, extent.length]);
    await client.close();
    expect(dirty).toEqual([
      [2 * MIB + 4 * KIB, 60 * KIB],
      [30 * MIB, 64 * KIB],
    ]);
  });

  it('reads many pieces at once, and one longer than a request may be', async () => {
    const client = await connectNbd({ at: at(), export: 'd' });
    const signal = new AbortController().signal;
    const bytes = Buffer.alloc(flat.length, 0xee);
    const step = 700 * KIB + 13;
    const reads: Promise<void>[] = [];
    for (let offset = 0; offset < flat.length; offset += step) {
      const length = Math.min(step, flat.length - offset);
      reads.push(client.read({ offset, length }, bytes.subarray(offset, offset + length), signal));
    }
    await Promise.all(reads);
    expect(Buffer.compare(bytes, flat)).toBe(0);
    bytes.fill(0xee);
    await client.read({ offset: 0, length: bytes.length }, bytes);
    await client.close();
    expect(Buffer.compare(bytes, flat)).toBe(0);
  });

  it('leaves the buffer of an aborted read alone and goes on', async () => {
    const client = await connectNbd({ at: at(), export: 'd' });
    const stop = new AbortController();
    const into = Buffer.alloc(32 * MIB);
    const read = client.read({ offset: MIB, length: into.length }, into, stop.signal);
    stop.abort(new Error('enough'));
    await expect(read).rejects.toThrow('enough');
    into.fill(0xab);
    const next = Buffer.alloc(64 * KIB);
    await client.read({ offset: 2 * MIB, length: next.length }, next);
    await client.close();
    expect(next.equals(Buffer.alloc(64 * KIB, 0x22))).toBe(true);
    expect(into.equals(Buffer.alloc(into.length, 0xab))).toBe(true);
  });

  it('writes, zeroes, trims and flushes', async () => {
    const client = await connectNbd({ at: at(), export: 'w', contexts: [BASE_ALLOCATION] });
    await client.write(MIB + 5, Buffer.alloc(3 * MIB, 0x77));
    await client.writeZeroes({ offset: 2 * MIB, length: MIB });
    await client.trim({ offset: 3 * MIB, length: MIB });
    await client.flush();
    await client.close();
    const want = Buffer.alloc(8 * MIB);
    want.fill(0x77, MIB + 5, 4 * MIB + 5);
    want.fill(0, 2 * MIB, 4 * MIB);
    expect(Buffer.compare(await readFile(join(folder, 'w.raw')), want)).toBe(0);
  });

  it('names export and socket in its errors', async () => {
    const { unix } = at();
    const message = expect.stringContaining(unix);
    await expect(connectNbd({ at: at(), export: 'no' })).rejects.toMatchObject({ code: 'HYPERVISOR_ERROR', message });
    const contexts = ['qemu:dirty-bitmap:none'];
    await expect(connectNbd({ at: at(), export: 'd', contexts })).rejects.toMatchObject({
      code: 'TRACKING_LOST',
      message,
    });
    const nobody = { unix: join(folder, 'none') };
    await expect(connectNbd({ at: nobody, export: 'd' })).rejects.toMatchObject({ code: 'UNREACHABLE' });
    const client = await connectNbd({ at: at(), export: 'd' });
    await expect(client.write(0, Buffer.alloc(512))).rejects.toMatchObject({ code: 'HYPERVISOR_ERROR', message });
    await client.close();
    await expect(client.read({ offset: 0, length: 1 }, Buffer.alloc(1))).rejects.toMatchObject({ code: 'UNREACHABLE' });
  });
});

describe('NBD client against a hostile server', () => {
  const greeting = Buffer.alloc(18);
  greeting.writeBigUInt64BE(NBD_MAGIC, 0);
  greeting.writeBigUInt64BE(OPTION_MAGIC, 8);
  greeting.writeUInt16BE(3, 16);
  const endless = Buffer.alloc(20);
  endless.writeBigUInt64BE(0x0003_e889_0455_65a9n, 0);
  endless.writeUInt32BE(8, 8);
  endless.writeUInt32BE(3, 12);
  endless.writeUInt32BE(0xffff_ffff, 16);

  it.each([
    ['another protocol', Buffer.alloc(64, 'x')],
    ['an endless option reply', Buffer.concat([greeting, endless])],
  ])('ends at %s', async (_name, said) => {
    const server = createServer(
      (socket) =>
        void socket
          .on('error', () => undefined)
          .resume()
          .write(said),
    );
    const path = join(folder, `bad${said.length}.sock`);
    await new Promise<void>((resolve) => server.listen(path, resolve));
    await expect(connectNbd({ at: { unix: path }, export: 'd' })).rejects.toMatchObject({ code: 'HYPERVISOR_ERROR' });
    await new Promise((resolve) => server.close(resolve));
  });

  it('parses the same whatever the borders of packets', () => {
    const got: string[] = [];
    const pump = new Pump(
      (function* () {
        got.push((yield* take(3)).toString(), (yield* take(0)).toString(), (yield* take(5)).toString());
      })(),
    );
    for (const byte of Buffer.from('abcdefghij')) pump.push(Uint8Array.of(byte));
    expect(got).toEqual(['abc', '', 'defgh']);
  });
});
