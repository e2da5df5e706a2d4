/** What movers do when something dies, hangs or lies, told apart from the plain ways of `mover.test.ts`. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { blake3 } from '@napi-rs/blake-hash';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Endpoint } from '../../schema/domain/hypervisor.ts';
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import { diskKey, restorePointId, runKey } from '../../schema/domain/ids.ts';
import { blockSizes, compressions } from '../../schema/domain/states.ts';
import type { RestoreSource, TransferRegistrar } from '../../schema/domain/seams.ts';
import { encodeMessage, type Message } from '../../schema/wire/messages.ts';
import { orderOf, seeded, TEST_DISK, writeRandomDisk } from '../../tests/fixtures/mover/disks.ts';
import { expectedMap, mapOf, MemoryRepository } from '../../tests/fixtures/mover/memory-repository.ts';
import {
  backupHello,
  dataFrame,
  offerFrame,
  rawClient,
  type RawClient,
  windowEndFrame,
} from '../../tests/fixtures/mover/raw-client.ts';
import { registrarPerDisk } from '../../tests/fixtures/mover/registrar-per-disk.ts';
import { CRASH, FAIL_SYNC } from '../../tests/fixtures/mover/target-marks.ts';
import { restoreOrderOf } from '../../tests/fixtures/mover/restores.ts';
import { restoreWelcome, silentServer, type TestServer, wireServer } from '../../tests/fixtures/mover/test-servers.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { createRestorePool, type RestorePool } from './restore-client/pool.ts';
import { createSourcePool, type SourcePool } from './source/pool.ts';
import { type MoverTarget, startMoverTarget } from './target/mover-target.ts';
import { TokenBucket } from './throttle/token-bucket.ts';
import { Wire } from './wire-session/wire.ts';

const MIB = 1024 * 1024;
let folder: string;
let repository: MemoryRepository;
let target: MoverTarget | null;
const ends: (() => unknown)[] = [];

beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'td-faults-'));
  repository = new MemoryRepository(path.join(folder, 'ledger'));
  target = null;
});

afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
  await target?.close();
  await rm(folder, { recursive: true, force: true });
});

const fixture = (name: string): URL => new URL(`../../tests/fixtures/mover/${name}.ts`, import.meta.url);
const socketOf = (name = 'mover'): string => path.join(folder, 'sock', name);
const laneClient = (lane = 0): Promise<RawClient> => rawClient(socketOf(`mover.${lane}`));

type StartOptions = { registrar?: TransferRegistrar; restoreSource?: RestoreSource; helloMs?: number };
async function start(of: StartOptions = {}): Promise<MoverTarget> {
  target = await startMoverTarget({
    listen: { unix: socketOf() },
    laneCount: 2,
    laneEntry: fixture('target-lane'),
    laneData: { folder },
    registrar: of.registrar ?? repository,
    restoreSource: of.restoreSource ?? repository.restoreSource(0, 0),
    timeouts: { helloMs: of.helloMs ?? 10_000, frameMs: 10_000 },
    seams: testSeams(),
  });
  return target;
}

function sourcePool(laneCount: number, of: { readDepth?: number } = {}): SourcePool {
  const pool = createSourcePool({ laneCount, ...of, laneEntry: fixture('source-lane'), seams: testSeams() });
  ends.push(() => pool.close());
  return pool;
}

function restorePool(laneCount: number): RestorePool {
  const pool = createRestorePool({ laneCount, laneEntry: fixture('restore-lane'), seams: testSeams() });
  ends.push(() => pool.close());
  return pool;
}

const kept = <T extends { close(): unknown }>(server: T): T => {
  ends.push(() => server.close());
  return server;
};

async function randomDisk(name: string, sizeBytes: number): Promise<string> {
  const file = path.join(folder, name);
  await writeRandomDisk(file, sizeBytes, seeded().next, 1);
  return file;
}

describe('durability', () => {
  test('a failed sync ends all connections of its lane: none is acknowledged on a pack that was abandoned', async () => {
    await start();
    const clients = [await laneClient(), await laneClient()];
    for (const [i, client] of clients.entries()) {
      client.send(backupHello(MIB, MIB));
      await client.next('welcome');
      const block = Buffer.alloc(MIB, `block ${i}`);
      client.send(offerFrame({ window: 0, firstBlock: 0, classes: ['data'], digests: blake3(block) }));
      expect(await client.next('answer')).toMatchObject({ answers: ['want'] });
      client.send(dataFrame(0, 0, block));
      await client.next('credit');
    }
    await writeFile(path.join(folder, FAIL_SYNC), '');
    clients[0]!.send(windowEndFrame(0, { dataBytes: MIB }));
    expect(await clients[0]!.next('error')).toMatchObject({ code: 'STORAGE_ERROR' });
    // The other one's block lay in the same pack; it is to come again on a new connection.
    expect(await clients[1]!.next('error')).toMatchObject({ code: 'TRANSFER_FAILED' });
    expect(repository.windows.size).toBe(0);
  });

  test.each(['before', 'after'] as const)(
    'a target that dies %s the commit, before its ACK: the window counts once',
    async (when) => {
      const file = await randomDisk('disk', 3 * MIB);
      let child = await startTargetProcess();
      await writeFile(path.join(folder, `die-${when}-commit`), '');
      void once(child, 'exit').then(async () => (child = await startTargetProcess()));
      const order = orderOf({
        disk: { file },
        sizeBytes: 3 * MIB,
        blockSize: MIB,
        compression: 'none',
        endpoint: { unix: socketOf() },
      });
      const summary = await sourcePool(2).transfer(order);
      expect(summary).toMatchObject({ windowCount: 1, windowsSent: when === 'before' ? 1 : 0 });
      const reread = new MemoryRepository(path.join(folder, 'ledger-d0'));
      expect(reread.map(3 * MIB, MIB)).toEqual(await expectedMap(file, MIB));
    },
  );
});

async function startTargetProcess(): Promise<ChildProcess> {
  const child = spawn(process.execPath, [fixture('target-process').pathname, folder], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  ends.push(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  return child;
}

test('disks of all sizes come whole through a target that is killed again and again', async () => {
  const { next } = seeded();
  let child = await startTargetProcess();
  const pool = sourcePool(2);
  const sizes = [WINDOW_BYTES + next(1_000_000), next(WINDOW_BYTES), 512 + next(4096), 1];
  const orders = await Promise.all(
    sizes.map(async (sizeBytes, i) => {
      const file = path.join(folder, `disk${i}`);
      await writeRandomDisk(file, sizeBytes, next);
      const crashOnce = { offset: next(sizeBytes), marker: path.join(folder, `crash${i}`) };
      const blockSize = blockSizes[next(4)]!;
      const compression = compressions[next(compressions.length)]!;
      const of = {
        disk: { file, delayMs: 10, crashOnce },
        sizeBytes,
        blockSize,
        compression,
        diskKey: diskKey(`d${i}`),
      };
      return { file, order: orderOf({ ...of, endpoint: { unix: socketOf() } }) };
    }),
  );
  const transfers = Promise.all(orders.map(({ order }) => pool.transfer(order)));
  const ended = transfers.then(() => 'ended');
  for (let kills = 0; kills < 4; kills += 1) {
    if ((await Promise.race([ended, sleep(200 + next(800))])) === 'ended') break;
    child.kill('SIGKILL');
    await once(child, 'exit');
    child = await startTargetProcess();
  }
  await transfers;
  for (const { file, order } of orders) {
    const { sizeBytes, blockSize, diskKey: key } = order.assignment;
    const ledger = new MemoryRepository(path.join(folder, `ledger-${key}`));
    expect(ledger.map(sizeBytes, blockSize)).toEqual(await expectedMap(file, blockSize));
  }
}, 90_000);

describe('waiting', () => {
  const shortDisk = async (endpoint: Endpoint) =>
    orderOf({ disk: { file: await randomDisk('short', MIB) }, sizeBytes: MIB, blockSize: MIB, endpoint });

  test('a stop gives the lane free at once, also while it waits for a silent target', async () => {
    const silent = kept(await silentServer(path.join(folder, 'silent')));
    const { endpoint } = await start();
    const pool = sourcePool(1);
    const stop = new AbortController();
    const first = pool.transfer({ ...(await shortDisk({ unix: silent.path })), signal: stop.signal });
    await silent.connected;
    stop.abort(new Error('enough'));
    await expect(first).rejects.toThrow('enough');
    await vi.waitFor(() => expect(silent.open()).toBe(0), { timeout: 15_000 });
    await pool.transfer(await shortDisk(endpoint));
  });

  test('a target that is stopped, not dead, is given up after the patience asked for', async () => {
    const child = await startTargetProcess();
    const file = await randomDisk('disk', 8 * MIB);
    const of = { disk: { file, delayMs: 100 }, sizeBytes: 8 * MIB, blockSize: MIB, endpoint: { unix: socketOf() } };
    const transfer = sourcePool(1).transfer({
      ...orderOf(of),
      patienceMs: 2000,
      onProgress: (p) => p.windowOpen && child.kill('SIGSTOP'),
    });
    await expect(transfer).rejects.toMatchObject({ code: 'TRANSFER_FAILED' });
  });

  test('a restore that waits for its turn is stopped at once', async () => {
    const silent = kept(await silentServer(path.join(folder, 'silent')));
    const pool = restorePool(1);
    const stop = new AbortController();
    const first = pool.restoreDisk(await restoreOrder({ unix: silent.path }, stop.signal));
    const waiting = new AbortController();
    const second = pool.restoreDisk(await restoreOrder({ unix: silent.path }, waiting.signal));
    await silent.connected;
    waiting.abort(new Error('not wanted any more'));
    await expect(second).rejects.toThrow('not wanted any more');
    stop.abort(new Error('enough'));
    await expect(first).rejects.toThrow('enough');
    await vi.waitFor(() => expect(silent.open()).toBe(0), { timeout: 15_000 });
  });

  test('a storage that answers no read any more ends the transfer, and the checkpoint with it', async () => {
    const file = await randomDisk('disk', 8 * MIB);
    const { endpoint } = await start();
    const disk = { file, delayMs: 60_000 };
    const order = orderOf({ disk, sizeBytes: 8 * MIB, blockSize: MIB, compression: 'none', endpoint });
    await expect(sourcePool(1).transfer({ ...order, sourceSilenceMs: 500 })).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringMatching(/its storage has answered no read for \d+ s/),
    });
  });

  test('a connection that ends takes what a rate held back with it', async () => {
    const socket = connect(kept(await silentServer(path.join(folder, 'silent'))).path);
    const wire = new Wire({ socket, what: 'test', onMessage: () => undefined, onEnd: () => undefined });
    const bucket = new TokenBucket();
    bucket.rate = 1000;
    const pace = { bucket, waiting: <T>(work: () => Promise<T>) => work() };
    const head = { type: 'data', window: 0, codec: 'none', rawLength: MIB } as const;
    const held = [0, 1].map((block) => wire.sendPaced({ ...head, block }, Buffer.alloc(MIB), pace));
    wire.destroy(new Error('gone'));
    for (const each of held) await expect(each).rejects.toMatchObject({ code: 'UNREACHABLE' });
  });

  test('a restore from a target that falls silent is given up; closing the pool says why', async () => {
    const silent = kept(
      await wireServer(path.join(folder, 'deaf'), (asked) => (asked.type === 'hello' ? [restoreWelcome] : [])),
    );
    const pool = restorePool(2);
    const signal = new AbortController().signal;
    const impatient = { ...(await restoreOrder({ unix: silent.path }, signal)), patienceMs: 1000 };
    await expect(pool.restoreDisk(impatient)).rejects.toMatchObject({ code: 'TRANSFER_FAILED' });
    const closed = expect(pool.restoreDisk(await restoreOrder({ unix: silent.path }, signal))).rejects.toMatchObject({
      code: 'HOST_DRAINING',
    });
    await silent.connected;
    await pool.close();
    await closed;
  });
});

const restoreOrder = (endpoint: Endpoint, signal: AbortSignal) =>
  restoreOrderOf({ endpoint, file: path.join(folder, 'restored'), sizeBytes: MIB }, signal);

describe('lanes', () => {
  test('many disks over few lanes all end, one of them empty', async () => {
    const repositories = new Map<string, MemoryRepository>();
    const { endpoint } = await start({ registrar: registrarPerDisk(folder, repositories) });
    const pool = sourcePool(2);
    const sizes = Array.from({ length: 12 }, (_, i) => (i === 5 ? 0 : i * 300_000 + 1));
    const file = await randomDisk('disk', 12 * 300_000);
    const disk = { disk: { file }, blockSize: 256 * 1024, endpoint };
    const orders = sizes.map((sizeBytes, i) => orderOf({ ...disk, sizeBytes, diskKey: diskKey(`d${i}`) }));
    const summaries = await Promise.all(orders.map((order) => pool.transfer(order)));
    expect(summaries.map(({ windowCount }) => windowCount)).toEqual(sizes.map((size) => (size === 0 ? 0 : 1)));
    const whole = await readFile(file);
    for (const [i, sizeBytes] of sizes.entries()) {
      const expected = mapOf(whole.subarray(0, sizeBytes), 256 * 1024);
      expect(repositories.get(`d${i}`)?.map(sizeBytes, 256 * 1024) ?? []).toEqual(expected);
    }
  });

  test('a lane of the source that dies while it opens the disk is replaced', async () => {
    const file = await randomDisk('disk', 3 * MIB);
    const { endpoint } = await start();
    const crashOnce = { offset: null, marker: path.join(folder, 'crashed') };
    const disk = { file, crashOnce, changed: [{ offset: 0, length: 3 * MIB }] };
    const order = orderOf({ disk, sizeBytes: 3 * MIB, blockSize: MIB, mode: 'cbt', endpoint });
    expect(await sourcePool(1).transfer(order)).toMatchObject({ windowsSent: 1, reconnects: 1 });
    expect(repository.map(3 * MIB, MIB)).toEqual(await expectedMap(file, MIB));
  });

  test('no more lanes than the export takes connections', async () => {
    const file = await randomDisk('disk', 200 * MIB);
    const { endpoint } = await start();
    const order = orderOf({ disk: { file }, sizeBytes: 200 * MIB, blockSize: MIB, compression: 'none', endpoint });
    const data = { via: 'nbd' as const, at: endpoint, export: '', maxConnections: 1, model: JSON.stringify({ file }) };
    await sourcePool(2).transfer({ ...order, access: { ...order.access, data } });
    expect(repository.begun).toBe(1);
  });

  test('of a depth of one, one read at a time over all lanes', async () => {
    const file = await randomDisk('disk', 200 * MIB);
    const { endpoint } = await start();
    const order = (name: string) => {
      const disk = { file, delayMs: 5, alone: `${file}.${name}` };
      return orderOf({ disk, sizeBytes: 200 * MIB, blockSize: MIB, compression: 'none', endpoint });
    };
    await expect(sourcePool(2, { readDepth: 2 }).transfer(order('two'))).rejects.toThrow('EEXIST');
    expect(await sourcePool(2, { readDepth: 1 }).transfer(order('one'))).toMatchObject({ windowCount: 4 });
  });

  test('a lane of the target that cannot come back is tried until it can', async () => {
    await start();
    const lane = socketOf('mover.0');
    const client = await laneClient();
    client.send(backupHello(MIB, MIB));
    await client.next('welcome');
    const block = Buffer.alloc(MIB, CRASH);
    client.send(offerFrame({ window: 0, firstBlock: 0, classes: ['data'], digests: blake3(block) }));
    await client.next('answer');
    client.send(dataFrame(0, 0, block));
    await client.closed;
    await rm(lane, { force: true });
    await mkdir(lane);
    await new Promise((resolve) => setTimeout(resolve, 500));
    await rm(lane, { recursive: true });
    await vi.waitFor(async () => (await laneClient()).destroy(), { timeout: 20_000 });
  });

  test('a target that cannot start leaves no thread behind', async () => {
    const taken = kept(await listenOnTcp());
    const script = `
      import { startMoverTarget } from '${new URL('./target/mover-target.ts', import.meta.url).href}';
      import { testSeams } from '${new URL('../../tests/fixtures/seams.ts', import.meta.url).href}';
      await startMoverTarget({ listen: { host: '127.0.0.1', port: ${taken.port} }, laneCount: 2,
        laneEntry: new URL('${fixture('target-lane').href}'), laneData: { folder: '${folder}' }, registrar: { commit() {}, commitUntouched() {} },
        restoreSource: { resolve() {}, damaged() {} }, seams: testSeams() }).catch((error) => console.log(error.code));`;
    const entry = path.join(folder, 'start.mjs');
    await writeFile(entry, script);
    const child = spawn(process.execPath, [entry], { stdio: ['ignore', 'pipe', 'inherit'] });
    ends.push(() => child.kill('SIGKILL'));
    const [said] = (await once(child.stdout, 'data')) as [Buffer];
    expect(said.toString().trim()).toBe('UNREACHABLE');
    await once(child, 'exit');
  });

  test('closing does not wait for a client that says nothing at the door', async () => {
    await start({ helloMs: 60_000 });
    const idle = await rawClient(socketOf());
    await target!.close();
    await idle.closed;
  });

  test('a connection ends for the repository after it has begun, however soon its client leaves', async () => {
    const order: string[] = [];
    const source: RestoreSource = {
      begin: async () => {
        await new Promise((resolve) => setTimeout(resolve, 300));
        order.push('begun');
        return { sizeBytes: MIB, blockSize: MIB };
      },
      resolve: () => Promise.reject(new Error('not asked')),
      damaged: () => Promise.reject(new Error('not asked')),
      end: async () => void order.push('ended'),
    };
    await start({ restoreSource: source });
    const client = await laneClient();
    client.send(restoreHello);
    await new Promise((resolve) => setTimeout(resolve, 100));
    client.destroy();
    await vi.waitFor(() => expect(order).toHaveLength(2), { timeout: 15_000 });
    expect(order).toEqual(['begun', 'ended']);
  });
});

const restoreHello = encodeMessage({
  type: 'hello',
  purpose: 'restore',
  lowestVersion: 1,
  highestVersion: 1,
  software: 'test',
  restorePointId: restorePointId('0123456789abcdef0123456789abcdef'),
  run: runKey('restore00000'),
  fence: 0,
  sizeBytes: 0,
  blockSize: 0,
  diskKey: TEST_DISK,
  creditBytes: 16 * MIB,
});

async function listenOnTcp(): Promise<{ port: number; close(): Promise<void> }> {
  const server: Server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  return { port, close: async () => void (await new Promise((resolve) => server.close(resolve))) };
}

describe('versions', () => {
  test('the highest that both ends speak is chosen; a client that speaks none of ours is refused by name', async () => {
    await start();
    const greet = async (lowestVersion: number, highestVersion: number): Promise<RawClient> => {
      const client = await laneClient();
      client.send(backupHello(MIB, MIB, { lowestVersion, highestVersion }));
      return client;
    };
    expect(await (await greet(0, 7)).next('welcome')).toMatchObject({ version: 1 });
    for (const [lowest, highest, said] of [
      [0, 0, 'HELLO versions is 0, allowed is 1'],
      [2, 7, 'HELLO versions is 2 to 7, allowed is 1'],
    ] as const) {
      const refused = await greet(lowest, highest);
      const message = expect.stringContaining(said) as string;
      expect(await refused.next('error')).toMatchObject({ code: 'PROTOCOL_ERROR', message });
      await refused.closed;
    }
  });

  test('a target that chooses a version that was not offered is refused by name', async () => {
    const server = kept(await wireServer(path.join(folder, 'newer'), () => [{ ...restoreWelcome, version: 2 }]));
    const order = await restoreOrder({ unix: server.path }, new AbortController().signal);
    await expect(restorePool(1).restoreDisk(order)).rejects.toMatchObject({
      code: 'PROTOCOL_ERROR',
      message: expect.stringContaining('WELCOME version is 2, allowed is 1') as string,
    });
  });
});

describe('a target that lies', () => {
  const welcome = { ...restoreWelcome, blockSize: MIB / 4, creditBytes: 4 * MIB } as Message;
  const shortAnswer: Message = { type: 'answer', window: 0, firstBlock: 0, answers: ['have'] };
  const answer: Message = { ...shortAnswer, answers: ['have', 'have', 'have', 'have'] };
  const wrongAck: Message = { type: 'ack', firstWindow: 3, count: 1, busyMs: 0 };
  const wrongAnswer: Message = { type: 'answer', window: 7, firstBlock: 0, answers: ['have', 'have', 'have', 'have'] };
  const lies: [string, { hello: Message; offer?: Message; windowEnd?: Message }][] = [
    ['grants less credit than a block may need', { hello: { ...welcome, creditBytes: 1000 } as Message }],
    ['says another size', { hello: { ...welcome, sizeBytes: 2 * MIB } as Message }],
    ['answers fewer blocks than were offered', { hello: welcome, offer: shortAnswer }],
    ['answers for another window', { hello: welcome, offer: wrongAnswer }],
    ['acknowledges another window', { hello: welcome, offer: answer, windowEnd: wrongAck }],
  ];
  test.each(lies)('%s: refused', async (_name, answers) => {
    const all: Partial<Record<Message['type'], Message>> = { windowEnd: { ...wrongAck, firstWindow: 0 }, ...answers };
    const reply = (asked: Message): Message[] => [all[asked.type]].filter((message) => message !== undefined);
    const server: TestServer = kept(await wireServer(path.join(folder, 'liar'), reply));
    const file = await randomDisk('disk', MIB);
    const order = orderOf({ disk: { file }, sizeBytes: MIB, blockSize: 256 * 1024, endpoint: { unix: server.path } });
    await expect(sourcePool(1).transfer({ ...order, patienceMs: 5000 })).rejects.toMatchObject({
      code: 'PROTOCOL_ERROR',
    });
  });
});
