import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { randomFillSync } from 'node:crypto';
import { mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { blake3 } from '@napi-rs/blake-hash';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { restorePointId, runKey } from '../../schema/domain/ids.ts';
import type { TransferAssignment } from '../../schema/domain/restore-point.ts';
import { encodeMessage } from '../../schema/wire/messages.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { rehearse } from './rehearse.ts';
import { MOST_DECODED } from './restore-client/restore-connection.ts';
import { createSourcePool, type SourcePool, type TransferProgress } from './source/pool.ts';
import { type MoverTarget, startMoverTarget } from './target/mover-target.ts';
import { orderOf, seeded, TEST_DISK, writeRandomDisk } from '../../tests/fixtures/mover/disks.ts';
import { expectedMap, MemoryRepository } from '../../tests/fixtures/mover/memory-repository.ts';
import { restoreInto as restore } from '../../tests/fixtures/mover/restores.ts';
import type { TestRestoreLane } from '../../tests/fixtures/mover/restore-lane.ts';
import { backupHello, offerFrame, rawClient, type RawClient } from '../../tests/fixtures/mover/raw-client.ts';

const MIB = 1024 * 1024;
let folder: string;
let pool: SourcePool;
let target: MoverTarget | null;
let child: ChildProcess | null;
let repository: MemoryRepository;

beforeAll(() => {
  pool = createSourcePool({
    laneCount: 2,
    laneEntry: new URL('../../tests/fixtures/mover/source-lane.ts', import.meta.url),
    seams: testSeams(),
  });
});
afterAll(() => pool.close());

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'td-mover-'));
  repository = new MemoryRepository(path.join(folder, 'ledger'));
  target = null;
  child = null;
});

afterEach(async () => {
  await target?.close();
  child?.kill('SIGKILL');
  await rm(folder, { recursive: true, force: true });
});

const start = async (
  of: { sizeBytes?: number; blockSize?: number; tcp?: boolean; impatient?: boolean } = {},
): Promise<MoverTarget> => {
  target = await startMoverTarget({
    listen: of.tcp ? { host: '127.0.0.1', port: 0 } : { unix: path.join(folder, 'sock', 'mover') },
    laneCount: 2,
    laneEntry: new URL('../../tests/fixtures/mover/target-lane.ts', import.meta.url),
    laneData: { folder },
    registrar: repository,
    restoreSource: repository.restoreSource(of.sizeBytes ?? 0, of.blockSize ?? MIB),
    ...(of.impatient ? { timeouts: { helloMs: 1000, frameMs: 300 } } : {}),
    seams: testSeams(),
  });
  return target;
};

const restoreInto = (file: string, sizeBytes: number, laneData: TestRestoreLane = {}) =>
  restore({ endpoint: target!.endpoint, file, sizeBytes }, laneData);

describe('full', () => {
  test.each([
    { compression: 'none', blockSize: 256 * 1024, sizeBytes: 66 * MIB + 1000, tcp: false },
    { compression: 'fast', blockSize: MIB, sizeBytes: 130 * MIB + 511, tcp: true },
    { compression: 'auto', blockSize: 4 * MIB, sizeBytes: 65 * MIB, tcp: false },
    { compression: 'balanced', blockSize: MIB, sizeBytes: 0, tcp: false },
    { compression: 'small', blockSize: MIB, sizeBytes: 1, tcp: false },
  ] as const)(
    'comes back byte for byte: $compression, blocks of $blockSize, disk of $sizeBytes',
    async ({ compression, blockSize, sizeBytes, tcp }) => {
      const { next } = seeded();
      const file = path.join(folder, 'disk');
      await writeRandomDisk(file, sizeBytes, next);
      const { endpoint } = await start({ sizeBytes, blockSize, tcp });
      let last: TransferProgress | null = null;
      const order = orderOf({ disk: { file }, sizeBytes, blockSize, compression, endpoint });
      const summary = await pool.transfer({ ...order, onProgress: (p) => (last = p) });
      expect(summary).toMatchObject({
        windowCount: Math.ceil(sizeBytes / WINDOW_BYTES),
        readBytes: sizeBytes,
        reconnects: 0,
      });
      expect(repository.map(sizeBytes, blockSize)).toEqual(await expectedMap(file, blockSize));
      expect(last).toMatchObject({ bytesDone: sizeBytes, bytesTotal: sizeBytes });
      await restoreInto(path.join(folder, 'restored'), sizeBytes);
      expect((await readFile(path.join(folder, 'restored'))).equals(await readFile(file))).toBe(true);
    },
  );

  test('several disks share the lanes, and blocks already there are not sent again', async () => {
    const { next } = seeded();
    const file = path.join(folder, 'disk');
    const sizeBytes = 70 * MIB;
    await writeRandomDisk(file, sizeBytes, next, 1);
    const { endpoint } = await start();
    const order = orderOf({ disk: { file }, sizeBytes, blockSize: MIB, compression: 'none', endpoint });
    const first = await pool.transfer(order);
    expect(first.sentBytes).toBe(sizeBytes);
    repository.windows.clear();
    const again = await Promise.all([pool.transfer(order), pool.transfer(order)]);
    expect(again.map((summary) => summary.sentBytes)).toEqual([0, 0]);
  });
});

test('cbt reads changes and alsoRead only, widened to blocks; untouched windows are one frame', async () => {
  const { next } = seeded();
  const file = path.join(folder, 'disk');
  const sizeBytes = 5 * WINDOW_BYTES;
  await writeFile(file, '');
  await truncate(file, sizeBytes);
  const { endpoint } = await start();
  const at = WINDOW_BYTES + next(30) * MIB + 5;
  const changed = [{ offset: at, length: 10 }];
  const alsoRead = [{ offset: 4 * WINDOW_BYTES, length: MIB }];
  const allocated = [
    { offset: 0, length: 4 * WINDOW_BYTES, state: 'data' as const },
    { offset: 4 * WINDOW_BYTES, length: WINDOW_BYTES, state: 'unallocated' as const },
  ];
  const order = orderOf({
    disk: { file, changed, allocated },
    sizeBytes,
    blockSize: MIB,
    mode: 'cbt',
    alsoRead,
    endpoint,
  });
  const summary = await pool.transfer(order);
  expect(summary).toMatchObject({ readBytes: MIB, sentBytes: 0, windowCount: 5, windowsSent: 5 });
  const map = repository.map(sizeBytes, MIB);
  const read = [...map.keys()].filter((block) => map[block] !== '');
  expect(read).toEqual([Math.floor(at / MIB), 256]);
  expect(repository.windows.get(2)).toMatchObject({ window: 2, count: 2, classes: null });
  expect(repository.windows.get(4)!.classes!.slice(0, 2)).toEqual(['unallocated', 'not-read']);
});

describe('an audit', () => {
  const sizeBytes = 6 * MIB + 7;
  /** Blocks 1 and 4 are changed, 2 is zeros, 5 has to be read for another reason, 6 is the short end. */
  const auditOrder = async () => {
    const { next } = seeded();
    const file = path.join(folder, 'disk');
    await writeRandomDisk(file, sizeBytes, next, 1);
    const disk = (await readFile(file)).fill(0, 2 * MIB, 3 * MIB);
    await writeFile(file, disk);
    const changed = [
      { offset: MIB + 5, length: 1 },
      { offset: 4 * MIB, length: MIB },
    ];
    const alsoRead = [{ offset: 5 * MIB, length: MIB }];
    repository.auditSteps = [
      [6, 0, 1],
      [2, 5, 4, 3],
    ];
    const { endpoint } = await start();
    return orderOf({ disk: { file, changed }, sizeBytes, blockSize: MIB, mode: 'cbt', alsoRead, endpoint });
  };

  test('tells what unchanged blocks hold, before anything is sent, and how far it is', async () => {
    const order = await auditOrder();
    const beats: (TransferProgress['audit'] & object)[] = [];
    const summary = await pool.transfer({
      ...order,
      onProgress: ({ audit, windowsAcked }) => {
        if (audit && windowsAcked === 0) beats.push(audit);
      },
    });
    const [first, second] = repository.auditAnswers;
    expect([first!.classes, second!.classes]).toEqual([
      ['data', 'data', 'changed'],
      ['zero', 'changed', 'changed', 'data'],
    ]);
    const map = await expectedMap(path.join(folder, 'disk'), MIB);
    const digests = Buffer.concat([first!.digests, second!.digests]).toString('hex');
    expect(digests).toBe([map[6], map[0], map[3]].join(''));
    expect(beats).toEqual(expect.arrayContaining([0, 3, 7].map((audited) => ({ audited, wanted: 7 }))));
    // What it reads is not the transfer's, and nobody walks over what changed for a disk so small.
    expect([summary.readBytes, repository.changedBytes]).toEqual([3 * MIB, 0]);
  });

  test('that finds something ends the transfer before any window', async () => {
    const order = await auditOrder();
    repository.auditFailure = new TidemarkError('AUDIT_MISMATCH', 'block 3 has changed');
    await expect(pool.transfer(order)).rejects.toMatchObject({
      code: 'AUDIT_MISMATCH',
      message: 'block 3 has changed',
    });
    expect(repository.windows.size).toBe(0);
  });

  test('whose connection is lost is made again', async () => {
    const order = await auditOrder();
    const [first] = repository.auditSteps;
    repository.auditFailure = new TidemarkError('UNREACHABLE', 'the target is going down');
    const summary = await pool.transfer({
      ...order,
      onProgress: () => {
        if (repository.auditAnswers.length < 2) return;
        repository.auditFailure = null;
      },
    });
    expect([summary.reconnects > 0, summary.windowsSent, first]).toEqual([true, 1, [6, 0, 1]]);
  });

  test('comes first: before it nothing of the disk is taken, and after it none', async () => {
    await auditOrder();
    const offer = offerFrame({ window: 0, firstBlock: 0, classes: ['zero'], digests: Buffer.alloc(0) });
    const untouched = encodeMessage({ type: 'untouched', firstWindow: 0, count: 1 });
    for (const frame of [offer, untouched]) {
      const client = await laneClient();
      client.send(backupHello(sizeBytes, MIB));
      expect(await client.next('welcome')).toMatchObject({ auditDue: true });
      client.send(frame);
      const message = expect.stringContaining('until the audit is over') as string;
      expect(await client.next('error')).toMatchObject({ code: 'PROTOCOL_ERROR', message });
    }
    repository.auditSteps = [];
    const client = await laneClient();
    client.send(backupHello(sizeBytes, MIB));
    expect(await client.next('welcome')).toMatchObject({ auditDue: false });
    client.send(encodeMessage({ type: 'audit', changedBytes: 0 }));
    expect(await client.next('error')).toMatchObject({ code: 'PROTOCOL_ERROR' });
  });
});

test('comparison reads everything and sends what differs', async () => {
  const { next } = seeded();
  const file = path.join(folder, 'disk');
  const sizeBytes = 40 * MIB + 7;
  await writeRandomDisk(file, sizeBytes, next, 1);
  repository.base = new Map((await expectedMap(file, MIB)).entries());
  const disk = await readFile(file);
  disk.fill(7, 3 * MIB + 1, 3 * MIB + 2);
  await writeFile(file, disk);
  const { endpoint } = await start();
  const summary = await pool.transfer(
    orderOf({ disk: { file }, sizeBytes, blockSize: MIB, mode: 'comparison', compression: 'none', endpoint }),
  );
  expect(summary).toMatchObject({ readBytes: sizeBytes, sentBytes: MIB });
});

describe('a comparison window by window', () => {
  const sizeBytes = 3 * WINDOW_BYTES + 5 * MIB + 7;
  let file: string;
  let disk: Buffer;
  beforeEach(async () => {
    file = path.join(folder, 'disk');
    await writeRandomDisk(file, sizeBytes, seeded().next);
    repository.base = new Map((await expectedMap(file, MIB)).entries());
    disk = await readFile(file);
  });
  const compare = async (change: Partial<TransferAssignment> = {}) => {
    await writeFile(file, disk);
    const { endpoint } = target ?? (await start());
    const of = { disk: { file }, sizeBytes, blockSize: MIB, mode: 'comparison', comparableBytes: sizeBytes } as const;
    const summary = await pool.transfer(orderOf({ ...of, endpoint, ...change }));
    expect(repository.map(sizeBytes, MIB)).toEqual(await expectedMap(file, MIB));
    return summary;
  };

  test('what is as in the base is told by one digest, and offered to nobody', async () => {
    expect(await compare()).toMatchObject({ readBytes: sizeBytes, sentBytes: 0, windowsSent: 4 });
    expect(repository.offered).toBe(0);
  });

  test('of a window that differs in few blocks those are read once more', async () => {
    disk.fill(7, WINDOW_BYTES + MIB + 1, WINDOW_BYTES + 2 * MIB + 2).fill(8, sizeBytes - 1);
    const summary = await compare();
    expect(summary.readBytes).toBe(sizeBytes + 2 * MIB + 7);
    expect(repository.offered).toBeGreaterThan(0);
    expect(repository.offered).toBeLessThanOrEqual(64 + 6);
  });

  test('a disk that is another one is read twice in the first window of each lane at most', async () => {
    for (let at = 0; at < disk.length; at += 4096) disk.writeUInt32LE(1 + at, Math.min(at, disk.length - 4));
    const { readBytes } = await compare();
    expect(readBytes).toBeGreaterThan(sizeBytes);
    expect(readBytes).toBeLessThanOrEqual(sizeBytes + 2 * WINDOW_BYTES);
  });

  test('beyond what both have nothing is compared', async () => {
    disk.fill(9, WINDOW_BYTES);
    repository.base = new Map([...repository.base!].filter(([block]) => block < 64 + 3));
    const { readBytes } = await compare({ comparableBytes: WINDOW_BYTES + 3 * MIB });
    expect(readBytes).toBe(sizeBytes);
  });

  test('costs a twentieth of the bytes on the wire that offers do', async () => {
    await start({ tcp: true });
    const { host, port } = target!.endpoint as { host: string; port: number };
    let bytes = 0;
    const count = (chunk: Buffer): void => void (bytes += chunk.length);
    const relay = createServer((socket) => {
      const on = connect(port, host);
      socket.on('data', count).pipe(on);
      on.on('data', count).pipe(socket);
    }).listen(0, '127.0.0.1');
    await once(relay, 'listening');
    const endpoint = { host: '127.0.0.1', port: (relay.address() as { port: number }).port };
    await compare({ endpoint });
    const compared = bytes;
    bytes = 0;
    repository.windows.clear();
    await compare({ endpoint, comparableBytes: 0 });
    relay.close();
    console.log(`${compared} bytes for 4 windows compared, ${bytes} offered`);
    // Of each lane a greeting of some 500 bytes; then 128 bytes a window, or more than 3000.
    expect(compared).toBeLessThan(1000 + 4 * 128 + 200);
    expect(bytes).toBeGreaterThan(6000);
  });
});

test('a block another transfer is sending is wanted after all when it does not come', async () => {
  const { next } = seeded();
  const file = path.join(folder, 'disk');
  const sizeBytes = 3 * MIB;
  await writeRandomDisk(file, sizeBytes, next, 1);
  const { endpoint } = await start();
  repository.pendingAnswers = 5;
  await pool.transfer(orderOf({ disk: { file }, sizeBytes, blockSize: MIB, endpoint }));
  expect(repository.map(sizeBytes, MIB)).toEqual(await expectedMap(file, MIB));
  expect(repository.places.size).toBe(3);
});

test('a target killed in mid-window: the same call ends well, at most lanes x window is sent twice', async () => {
  const { next } = seeded();
  const file = path.join(folder, 'disk');
  const sizeBytes = 4 * WINDOW_BYTES;
  await writeRandomDisk(file, sizeBytes, next, 1);
  await startChild();
  const endpoint = { unix: path.join(folder, 'sock', 'mover') };
  let killed = false;
  const order = orderOf({ disk: { file }, sizeBytes, blockSize: MIB, compression: 'none', endpoint });
  const summary = await pool.transfer({
    ...order,
    onProgress: (p) => {
      const inMidWindow = p.windowsAcked >= 1 && p.windowOpen && p.sentBytes > p.windowsAcked * WINDOW_BYTES + 8 * MIB;
      if (killed || !inMidWindow) return;
      killed = true;
      child!.kill('SIGKILL');
      void once(child!, 'exit').then(startChild);
    },
  });
  expect(killed).toBe(true);
  expect(summary.reconnects).toBeGreaterThan(0);
  expect(summary.sentBytes).toBeGreaterThanOrEqual(sizeBytes);
  expect(summary.sentBytes - sizeBytes).toBeLessThanOrEqual(2 * WINDOW_BYTES);
  const reread = new MemoryRepository(path.join(folder, 'ledger-d0'));
  expect(reread.map(sizeBytes, MIB)).toEqual(await expectedMap(file, MIB));
});

async function startChild(): Promise<void> {
  const entry = new URL('../../tests/fixtures/mover/target-process.ts', import.meta.url).pathname;
  child = spawn(process.execPath, [entry, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout!, 'data');
}

test('a second call goes on from the cursor', async () => {
  const { next } = seeded();
  const file = path.join(folder, 'disk');
  const sizeBytes = 3 * WINDOW_BYTES;
  await writeRandomDisk(file, sizeBytes, next, 1);
  const { endpoint } = await start();
  const order = orderOf({ disk: { file, delayMs: 5 }, sizeBytes, blockSize: MIB, compression: 'none', endpoint });
  const stop = new AbortController();
  const reason = new Error('stopped by the test');
  const onProgress = (p: TransferProgress): unknown => p.windowsAcked >= 1 && stop.abort(reason);
  const first = pool.transfer({ ...order, signal: stop.signal, onProgress });
  await expect(first).rejects.toBe(reason);
  const done = repository.windows.size;
  const second = await pool.transfer(order);
  expect(second.windowsSent).toBeLessThanOrEqual(3 - done);
  expect(repository.map(sizeBytes, MIB)).toEqual(await expectedMap(file, MIB));
});

test('a lane thread that crashes is replaced and its window sent again', async () => {
  const { next } = seeded();
  const file = path.join(folder, 'disk');
  const sizeBytes = 2 * WINDOW_BYTES;
  await writeRandomDisk(file, sizeBytes, next, 1);
  const { endpoint } = await start();
  const crashOnce = { offset: WINDOW_BYTES + 9 * MIB, marker: path.join(folder, 'crashed') };
  const summary = await pool.transfer(orderOf({ disk: { file, crashOnce }, sizeBytes, blockSize: MIB, endpoint }));
  await stat(crashOnce.marker);
  expect(summary.reconnects).toBe(1);
  expect(repository.map(sizeBytes, MIB)).toEqual(await expectedMap(file, MIB));
});

test('refusals end the transfer with their code; a target that never comes with TRANSFER_FAILED', async () => {
  const file = path.join(folder, 'disk');
  await writeFile(file, Buffer.alloc(MIB, 1));
  const { endpoint } = await start();
  repository.lowestFence = 9;
  const of = { disk: { file }, sizeBytes: MIB, blockSize: MIB };
  await expect(pool.transfer(orderOf({ ...of, endpoint }))).rejects.toMatchObject({ code: 'FENCED' });
  const nobody = orderOf({ ...of, endpoint: { unix: path.join(folder, 'nobody') } });
  await expect(pool.transfer({ ...nobody, patienceMs: 200 })).rejects.toMatchObject({ code: 'TRANSFER_FAILED' });
});

test('a restore goes on from its cursor file; one that is not sound is no cursor', async () => {
  const file = path.join(folder, 'disk');
  const sizeBytes = 2 * WINDOW_BYTES + 12_345;
  const { endpoint } = await start({ sizeBytes, blockSize: MIB });
  const whole = Buffer.alloc(sizeBytes);
  for (const window of [0, 1, 2]) randomFillSync(whole, window * WINDOW_BYTES, 12_345);
  await writeFile(file, whole);
  await pool.transfer(orderOf({ disk: { file }, sizeBytes, blockSize: MIB, endpoint }));
  const restored = path.join(folder, 'restored');
  const of = { restorePointId: '0123456789abcdef0123456789abcdef', diskKey: TEST_DISK, sizeBytes };
  const cursors = [
    { cursor: { lowWater: 0, above: [1] }, there: [1], windowsRestored: 2 },
    { cursor: { lowWater: 3, above: [] }, there: [0, 1, 2], windowsRestored: 0 },
    // Of a former form; of windows that are not there; out of order.
    { cursor: { windowsDone: 2 }, there: [], windowsRestored: 3 },
    { cursor: { lowWater: 1, above: [3] }, there: [], windowsRestored: 3 },
    { cursor: { lowWater: 0, above: [2, 1] }, there: [], windowsRestored: 3 },
  ];
  for (const { cursor, there, windowsRestored } of cursors) {
    const before = Buffer.alloc(sizeBytes);
    for (const window of there)
      whole.copy(before, window * WINDOW_BYTES, window * WINDOW_BYTES, (window + 1) * WINDOW_BYTES);
    await writeFile(restored, before);
    await writeFile(`${restored}.cursor`, JSON.stringify({ ...of, ...cursor }));
    expect(await restoreInto(restored, sizeBytes)).toMatchObject({ windowsRestored });
    expect((await readFile(restored)).equals(whole)).toBe(true);
    expect(JSON.parse(await readFile(`${restored}.cursor`, 'utf8'))).toEqual({ ...of, lowWater: 3, above: [] });
  }
});

const laneClient = (): Promise<RawClient> => rawClient(path.join(folder, 'sock', 'mover.0'));

test('of blocks that come well compressed few are decoded before a slow target has written them', async () => {
  const file = path.join(folder, 'disk');
  const blocks = Array.from({ length: 40 }, (_, block) => Buffer.alloc(MIB, `block ${block} `));
  await writeFile(file, Buffer.concat(blocks));
  const sizeBytes = blocks.length * MIB;
  const { endpoint } = await start({ sizeBytes });
  const { sentBytes } = await pool.transfer(orderOf({ disk: { file }, sizeBytes, blockSize: MIB, endpoint }));
  // All of them are on their way at once: what they take up is not bounded by credit.
  expect(sentBytes).toBeLessThan(MIB);
  const ahead = new Int32Array(new SharedArrayBuffer(8));
  await restoreInto(path.join(folder, 'restored'), sizeBytes, { ahead, writeMs: 30 });
  expect((await readFile(path.join(folder, 'restored'))).equals(await readFile(file))).toBe(true);
  expect([...ahead]).toEqual([0, MOST_DECODED]);
});

test('a damaged payload is asked for three times, then BAD_PAYLOAD; a good one in between is taken', async () => {
  await start();
  const block = Buffer.alloc(MIB, 'sound');
  for (const damaged of [2, 4]) {
    repository.windows.clear();
    repository.places.clear();
    const client = await laneClient();
    client.send(backupHello(MIB, MIB));
    await client.next('welcome');
    client.send(encodeMessage({ type: 'offer', window: 0, firstBlock: 0, classes: ['data'], digests: blake3(block) }));
    expect(await client.next('answer')).toMatchObject({ answers: ['want'] });
    const head = { type: 'data', window: 0, block: 0, codec: 'none', rawLength: MIB } as const;
    for (let attempt = 1; attempt <= damaged; attempt += 1) {
      client.send(Buffer.concat([encodeMessage(head, MIB), Buffer.alloc(MIB, 'damaged')]));
      if (attempt <= 3) expect(await client.next('want')).toMatchObject({ reason: 'damaged', attempt });
    }
    if (damaged > 3) {
      expect(await client.next('error')).toMatchObject({ code: 'BAD_PAYLOAD' });
      await client.closed;
      continue;
    }
    client.send(Buffer.concat([encodeMessage(head, MIB), block]));
    const sums = { notReadBytes: 0, unallocatedBytes: 0, zeroBytes: 0, dataBytes: MIB };
    client.send(encodeMessage({ type: 'windowEnd', window: 0, sums }));
    expect(await client.next('ack')).toMatchObject({ firstWindow: 0, count: 1 });
    client.send(encodeMessage({ type: 'bye' }));
    await client.closed;
  }
});

test('slow, cut, oversized and misplaced frames end in errors that name the field', async () => {
  await start({ impatient: true });
  const silent = await laneClient();
  expect(await silent.next('error')).toMatchObject({
    code: 'UNREACHABLE',
    message: expect.stringContaining('HELLO'),
  });
  const slow = await laneClient();
  slow.send(backupHello(MIB, MIB).subarray(0, 30));
  expect(await slow.next('error')).toMatchObject({ message: expect.stringContaining('frame did not come in time') });
  const early = await laneClient();
  early.send(encodeMessage({ type: 'get', window: 0 }));
  expect(await early.next('error')).toMatchObject({ message: expect.stringContaining('allowed is HELLO') });
  const wrong = await laneClient();
  wrong.send(backupHello(MIB, MIB));
  await wrong.next('welcome');
  wrong.send(encodeMessage({ type: 'offer', window: 1, firstBlock: 0, classes: ['zero'], digests: Buffer.alloc(0) }));
  expect(await wrong.next('error')).toMatchObject({ message: expect.stringContaining('OFFER window') });
  const lying = await laneClient();
  lying.send(backupHello(MIB, MIB));
  await lying.next('welcome');
  lying.send(encodeMessage({ type: 'offer', window: 0, firstBlock: 0, classes: ['zero'], digests: Buffer.alloc(0) }));
  const sums = { notReadBytes: 0, unallocatedBytes: 0, zeroBytes: 1, dataBytes: MIB - 1 };
  lying.send(encodeMessage({ type: 'windowEnd', window: 0, sums }));
  expect(await lying.next('error')).toMatchObject({ message: expect.stringContaining('WINDOW_END zeroBytes') });
  expect(repository.windows.size).toBe(0);
});

test('rehearsal shakes hands; sockets are private', async () => {
  const { endpoint } = await start();
  const of = {
    endpoint,
    restorePointId: restorePointId('0123456789abcdef0123456789abcdef'),
    run: runKey('abcdef012345'),
  };
  expect(await rehearse(of)).toEqual({ protocolVersion: 1, laneCount: 2 });
  const socket = path.join(folder, 'sock', 'mover');
  expect((await stat(socket)).mode & 0o777).toBe(0o600);
  expect((await stat(path.dirname(socket))).mode & 0o777).toBe(0o700);
  await expect(rehearse({ ...of, endpoint: { unix: `${socket}.none` } })).rejects.toMatchObject({
    code: 'UNREACHABLE',
  });
});
