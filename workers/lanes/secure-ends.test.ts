/** Movers of different machines, with real sockets and certificates: what comes through, and who is refused. */
import { once } from 'node:events';
import { copyFile, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { connect as connectPlain, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, createServer as createTlsServer } from 'node:tls';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { rehearse } from '../../engines/mover/rehearse.ts';
import { createRestorePool } from '../../engines/mover/restore-client/pool.ts';
import { createSourcePool, type SourcePool, type TransferOrder } from '../../engines/mover/source/pool.ts';
import { type MoverTarget, startMoverTarget } from '../../engines/mover/target/mover-target.ts';
import { openWire } from '../../engines/mover/wire-session/open-wire.ts';
import { deferred } from '../../engines/mover/waiting.ts';
import { type Grant, signGrant } from '../../engines/security/grants.ts';
import { errorCodeOf, type TidemarkError } from '../../schema/domain/errors.ts';
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import type { TargetEndpoint } from '../../schema/domain/hypervisor.ts';
import { diskKey, restorePointId, runKey } from '../../schema/domain/ids.ts';
import type { MachineRole } from '../../schema/domain/security.ts';
import { FrameDecoder } from '../../schema/wire/frame.ts';
import { decodeMessage, encodeMessage, type Message } from '../../schema/wire/messages.ts';
import { orderOf, seeded, TEST_DISK, writeRandomDisk } from '../../tests/fixtures/mover/disks.ts';
import { expectedMap, MemoryRepository } from '../../tests/fixtures/mover/memory-repository.ts';
import { restoreOrderOf } from '../../tests/fixtures/mover/restores.ts';
import { backupHello } from '../../tests/fixtures/mover/raw-client.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { createTestSite, type TestMachineSecurity, type TestSite } from '../../tests/fixtures/security.ts';
import { clientEnd } from './secure-ends.ts';

const MIB = 1024 * 1024;
/** Three windows, with data at the beginning of the first: more than sockets keep. */
const SIZE = 2 * WINDOW_BYTES + 777;
const DATA = 24 * MIB;
const RESTORE = runKey('restore00000');
/** Seconds since the epoch. */
const GRANT_END = Math.ceil(Date.now() / 1000) + 3600;
const grantKey = '5a'.repeat(32);
const fixture = (name: string): URL => new URL(`../../tests/fixtures/mover/${name}.ts`, import.meta.url);

let folder: string;
let site: TestSite;
let proxy: TestMachineSecurity;
let repository: MemoryRepository;
let target: MoverTarget;
let endpoint: TargetEndpoint;
let disk: string;
const ends: (() => unknown)[] = [];

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'td-sec-'));
  site = await createTestSite(folder);
  proxy = await site.machine('m2', ['proxy']);
  repository = new MemoryRepository(path.join(folder, 'ledger'));
  target = await startMoverTarget({
    listen: { unix: path.join(folder, 'sock', 'mover') },
    listenSecurely: { host: '127.0.0.1', port: 0 },
    laneCount: 2,
    laneEntry: fixture('target-lane'),
    laneData: { folder, security: { ...site.own, grantKey } },
    registrar: repository,
    restoreSource: repository.restoreSource(SIZE, MIB),
    timeouts: { helloMs: 1000, frameMs: 1000 },
    seams: testSeams(),
  });
  const { unix } = target.endpoint as { unix: string };
  endpoint = { unix, machineId: site.own.machineId, listen: target.secureEndpoint! };
  disk = path.join(folder, 'disk');
  await writeRandomDisk(disk, DATA, seeded().next, 1);
  await truncate(disk, SIZE);
});
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
  await target.close();
  await rm(folder, { recursive: true, force: true });
});

const { assignment: plain } = orderOf({ disk: { file: '' }, sizeBytes: SIZE, blockSize: MIB, endpoint: { unix: '' } });
const grantOf = (of: Partial<Grant> = {}): string =>
  signGrant(grantKey, {
    purpose: 'backup',
    machineId: proxy.machineId,
    restorePointId: plain.restorePointId,
    run: plain.run,
    diskKey: TEST_DISK,
    fence: 1,
    ...of,
  });

const pools = new Map<TestMachineSecurity, SourcePool>();
function sourceOn(machine: TestMachineSecurity): SourcePool {
  const there = pools.get(machine);
  if (there) return there;
  const pool = createSourcePool({
    laneCount: 2,
    laneEntry: fixture('source-lane'),
    laneData: machine,
    seams: testSeams(),
  });
  pools.set(machine, pool);
  ends.push(() => pool.close());
  return pool;
}
const order = (of: Partial<TransferOrder['assignment']> = {}): TransferOrder => ({
  ...orderOf({ disk: { file: disk }, sizeBytes: SIZE, blockSize: MIB, endpoint, grant: grantOf(), ...of }),
  patienceMs: 20_000,
});
/** What is refused has left nothing. */
async function refused(machine: TestMachineSecurity, of: Partial<TransferOrder['assignment']> = {}): Promise<string> {
  const error: unknown = await sourceOn(machine)
    .transfer(order(of))
    .then(
      () => null,
      (reason: unknown) => reason,
    );
  expect(repository.begun).toBe(0);
  return `${errorCodeOf(error)}: ${(error as Error | null)?.message}`;
}
const logged = (): Promise<string> => readFile(path.join(folder, 'log'), 'utf8').catch(() => '');
async function untilLogged(text: string): Promise<void> {
  while (!(await logged()).includes(text)) await sleep(20);
}

async function restoreOn(machine: TestMachineSecurity, grant: string, grantEnd = GRANT_END): Promise<Buffer> {
  const file = path.join(folder, 'restored');
  const order = await restoreOrderOf({ endpoint, file, sizeBytes: SIZE });
  const pool = createRestorePool({
    laneCount: 1,
    laneEntry: fixture('restore-lane'),
    laneData: machine,
    seams: testSeams(),
  });
  ends.push(() => pool.close());
  await pool.restoreDisk({ ...order, grant, grantEnd });
  return await readFile(file);
}
const restoreGrant = (of: Partial<Grant> = {}): string =>
  grantOf({ purpose: 'restore', run: RESTORE, diskKey: diskKey(''), fence: GRANT_END, ...of });

type RawPeer = { socket: Socket; heard: Message[]; closed: Promise<unknown> };
/** With the certificate of a machine, or (null) none. */
async function rawPeer(machine: TestMachineSecurity | null): Promise<RawPeer> {
  const of = machine?.layout ?? site.layout;
  const own = machine ? { cert: await readFile(of.certificate), key: await readFile(of.key) } : {};
  const { host, port } = target.secureEndpoint!;
  const checkServerIdentity = (): undefined => undefined;
  const socket = connect({
    host,
    port,
    ca: await readFile(of.authority),
    ...own,
    checkServerIdentity,
    minVersion: 'TLSv1.3',
  });
  const heard: Message[] = [];
  const decoder = new FrameDecoder((frame) => void heard.push(decodeMessage(frame)));
  socket.on('data', (bytes: Buffer) => decoder.push(bytes)).on('error', () => undefined);
  ends.push(() => socket.destroy());
  const closed = once(socket, 'close');
  await once(socket, 'secureConnect');
  return { socket, heard, closed };
}
const helloOf = (token: string): Buffer => {
  const bytes = decodedHello();
  return encodeMessage({ ...bytes, token });
};
function decodedHello(): Extract<Message, { type: 'hello' }> {
  let found: Message | null = null;
  new FrameDecoder((frame) => (found = decodeMessage(frame))).push(backupHello(SIZE, MIB));
  return found as unknown as Extract<Message, { type: 'hello' }>;
}

test('a backup and a restore between two machines come through, byte for byte, one handshake per connection', async () => {
  const summary = await sourceOn(proxy).transfer(order());
  expect(summary).toMatchObject({ readBytes: SIZE, reconnects: 0, windowCount: 3 });
  expect(repository.map(SIZE, MIB)).toEqual(await expectedMap(disk, MIB));
  expect(repository.begun).toBeLessThanOrEqual(2);
  expect((await restoreOn(proxy, restoreGrant())).equals(await readFile(disk))).toBe(true);
  const { restorePointId, run } = plain;
  expect(await rehearse({ endpoint, restorePointId, run, secure: clientEnd(proxy, testSeams()) })).toMatchObject({
    laneCount: 2,
  });
  expect(await logged()).toBe('');
});

test('on its own machine the target is reached through its socket, without a certificate', async () => {
  const own = { ...site.own, security: { ...proxy.security, files: { ...proxy.security.files, key: '/nowhere' } } };
  expect(await sourceOn(own).transfer(order())).toMatchObject({ readBytes: SIZE });
});

test('a target that listens to no other machine is not looked for', async () => {
  const { unix } = target.endpoint as { unix: string };
  expect(await refused(proxy, { endpoint: { unix, machineId: site.own.machineId } })).toMatch(/BAD_CONFIG.*`listen`/);
});

test('a client without a certificate is told so, and named in the log', async () => {
  const peer = await rawPeer(null);
  peer.socket.write(helloOf(grantOf()));
  await peer.closed;
  expect(peer.heard).toMatchObject([{ type: 'error', code: 'PEER_REFUSED' }]);
  expect(await logged()).toContain('it showed no certificate');
});

test('a client of another site is refused, and refuses the target itself', async () => {
  const other = await createTestSite(folder, 'other');
  const stranger = await other.machine('m2', ['proxy']);
  expect(await refused(stranger)).toMatch(/PEER_REFUSED.*no secure connection/);
  // With the right authority it would take the target; its own certificate is still the other site's.
  await writeFile(stranger.layout.authority, await readFile(site.layout.authority));
  await rm(stranger.layout.revocations);
  const forged = { ...stranger, security: { ...stranger.security, site: site.site } };
  expect(await refused(forged)).toContain('PEER_REFUSED: its certificate is not accepted');
  expect(await logged()).toContain('its certificate is not accepted');
});

test('another machine, another role, another transfer: each refused by name', async () => {
  const third = await site.machine('m3', ['proxy']);
  expect(await refused(third)).toContain('PEER_REFUSED: machine m3 was not assigned this: backup of disk d0, fence 1');
  const host = await site.machine('m4', ['host']);
  expect(await refused(host, { grant: grantOf({ machineId: host.machineId }) })).toContain(
    'machine m4 may not act as proxy',
  );
  for (const of of [
    { restorePointId: restorePointId('f'.repeat(32)) },
    { run: runKey('another00000') },
    { diskKey: diskKey('d1') },
    { fence: 2 },
    { purpose: 'restore' as const },
  ])
    expect(await refused(proxy, { grant: grantOf(of) })).toContain('PEER_REFUSED: machine m2 was not assigned this');
  expect(await refused(proxy, { grant: undefined! })).toContain('was not assigned this');
  await expect(restoreOn(proxy, grantOf())).rejects.toMatchObject({ code: 'PEER_REFUSED' });
  const text = await logged();
  for (const name of ['"machine":"m3"', '"machine":"m4"', '"machine":"m2"']) expect(text).toContain(name);
});

test('the grant of a restore ends, and its end cannot be put off', async () => {
  const over = Math.floor(Date.now() / 1000) - 1;
  const refusal = {
    code: 'PEER_REFUSED',
    message: expect.stringContaining('machine m2 is not assigned this any longer'),
  };
  await expect(restoreOn(proxy, restoreGrant({ fence: over }), over)).rejects.toMatchObject(refusal);
  for (const [fence, said] of [
    [over, GRANT_END],
    [0, 0],
    [GRANT_END, GRANT_END + 1],
  ] as const)
    await expect(restoreOn(proxy, restoreGrant({ fence }), said)).rejects.toMatchObject({ code: 'PEER_REFUSED' });
});

test('an old fence is refused, though it was assigned', async () => {
  repository.lowestFence = 2;
  expect(await refused(proxy)).toContain('FENCED');
  expect(await sourceOn(proxy).transfer(order({ fence: 2, grant: grantOf({ fence: 2 }) }))).toMatchObject({
    readBytes: SIZE,
  });
});

test('a machine that answers in the place of the repository is not spoken to', async () => {
  const elsewhere = { ...(endpoint as { unix: string }), machineId: proxy.machineId, listen: target.secureEndpoint! };
  const third = await site.machine('m3', ['proxy']);
  const text = await refused(third, { endpoint: elsewhere });
  expect(text).toContain('PEER_REFUSED: machine m1 answers where machine m2 should');
});

test('a revoked machine loses the connection it has and gets no other; who works beside it goes on', async () => {
  const third = await site.machine('m3', ['proxy']);
  const revoked = await rawPeer(proxy);
  revoked.socket.write(helloOf(grantOf()));
  const other = await rawPeer(third);
  other.socket.write(helloOf(grantOf({ machineId: third.machineId })));
  for (const { heard } of [revoked, other]) while (heard.length === 0) await sleep(10);
  await site.authority.revoke(proxy.machineId);
  await revoked.closed;
  expect(revoked.heard.at(-1)).toMatchObject({ type: 'error', code: 'PEER_REFUSED' });
  // The lane that it comes to may hear of it only just after.
  const again = await rawPeer(proxy);
  await again.closed;
  expect(again.heard).toMatchObject([{ type: 'error', message: expect.stringContaining('was revoked') as string }]);
  expect([other.socket.destroyed, other.heard.length]).toEqual([false, 1]);
  expect(await logged()).toMatch(/certificate of machine m2 was revoked/);
});

test('a repository that is revoked is not spoken to any longer: the connection ends, and is not made again', async () => {
  const ended = deferred<Error | null>();
  const options = { onMessage: () => undefined, onEnd: ended.resolve, secure: clientEnd(proxy, testSeams()) };
  await openWire(endpoint, { ...decodedHello(), token: grantOf() }, options);
  await site.authority.revoke(site.own.machineId);
  await copyFile(site.layout.revocations, proxy.layout.revocations);
  const error = (await ended.promise) as TidemarkError;
  expect([error.code, error.message]).toEqual(['PEER_REFUSED', 'the certificate of machine m1 was revoked']);
  expect(error.details['lost']).toBeUndefined();
});

test('a new certificate of the target is shown to who connects next, without a restart', async () => {
  const serialNow = async (): Promise<string> => {
    const { socket } = await rawPeer(proxy);
    const { serialNumber } = (socket as ReturnType<typeof connect>).getPeerX509Certificate()!;
    socket.destroy();
    return serialNumber;
  };
  const before = await serialNow();
  const roles: MachineRole[] = ['repository'];
  const { layout } = await site.machine('m1', roles);
  await writeFile(site.layout.certificate, await readFile(layout.certificate));
  while ((await serialNow()) === before) await sleep(50);
});

test('bytes that are no TLS, a handshake that does not come: ended, and named in the log', async () => {
  const { host, port } = target.secureEndpoint!;
  const socket = connectPlain(port, host);
  ends.push(() => socket.destroy());
  socket.on('error', () => undefined);
  socket.write(backupHello(SIZE, MIB));
  await once(socket, 'close');
  await untilLogged('a client did not come to a secure connection');
});

test('strangers that open many connections and say nothing keep no machine out', async () => {
  const { host, port } = target.secureEndpoint!;
  const open = new Set<Socket>();
  while (open.size < 300) {
    const socket = connectPlain(port, host).on('error', () => undefined);
    open.add(socket.resume().once('close', () => open.delete(socket)));
    ends.push(() => socket.destroy());
  }
  // As many as both lanes have room for, for the 10 s that a handshake may take.
  while (open.size > 128) await sleep(20);
  expect(await sourceOn(proxy).transfer({ ...order(), patienceMs: 5000 })).toMatchObject({
    windowCount: 3,
    reconnects: 0,
  });
});

test('one that sends a byte now and then, closes within a frame or stops reading: ended, and others go on', async () => {
  const transfer = sourceOn(proxy).transfer(order());
  const slow = await rawPeer(proxy);
  const trickle = setInterval(() => slow.socket.write(helloOf(grantOf()).subarray(0, 1)), 200);
  ends.push(() => clearInterval(trickle));
  const cut = await rawPeer(proxy);
  cut.socket.end(helloOf(grantOf()).subarray(0, 50));
  await Promise.all([slow.closed, cut.closed]);
  expect(slow.heard).toMatchObject([{ type: 'error', code: 'UNREACHABLE' }]);
  await transfer;
  expect(repository.map(SIZE, MIB)).toEqual(await expectedMap(disk, MIB));
  const deaf = await rawPeer(proxy);
  const hello = {
    ...decodedHello(),
    purpose: 'restore' as const,
    run: RESTORE,
    fence: GRANT_END,
    sizeBytes: 0,
    blockSize: 0,
  };
  deaf.socket.write(encodeMessage({ ...hello, creditBytes: 64 * MIB, token: restoreGrant() }));
  while (deaf.heard.length === 0) await sleep(10);
  deaf.socket.pause();
  deaf.socket.write(encodeMessage({ type: 'get', window: 0 }));
  expect((await restoreOn(proxy, restoreGrant())).equals(await readFile(disk))).toBe(true);
  // The target gives it up while it reads nothing; it hears so when it reads again.
  await sleep(2000);
  deaf.socket.resume();
  await deaf.closed;
  expect(deaf.heard.filter(({ type }) => type === 'windowDone')).toEqual([]);
});

test('of several addresses the first that answers is used, and the log names those that did not', async () => {
  const { host, port } = target.secureEndpoint!;
  // Takes the connection and says nothing, as what drops packets; the other one refuses it.
  const mute = createServer().listen(port, '127.0.0.3');
  await once(mute, 'listening');
  ends.push(() => mute.close());
  const { unix } = target.endpoint as { unix: string };
  const { machineId } = site.own;
  const warned: [string, unknown][] = [];
  const seams = testSeams();
  seams.log.warn = (message, fields) => void warned.push([message, fields?.['address']]);
  const secure = clientEnd(proxy, seams);
  const { restorePointId: point, run } = plain;
  const at = { unix, machineId, listen: { host: '127.0.0.3', port, others: ['127.0.0.2', host] } };
  expect(await rehearse({ endpoint: at, restorePointId: point, run, secure })).toMatchObject({ laneCount: 2 });
  const said = 'a repository does not answer at one of its addresses';
  expect(warned).toEqual([
    [said, `127.0.0.3:${port}`],
    [said, `127.0.0.2:${port}`],
  ]);
  // A whole disk, over as many connections as there are lanes.
  endpoint = { unix, machineId, listen: { host: '127.0.0.2', port, others: [host] } };
  await sourceOn(proxy).transfer(order({ grant: grantOf() }));
  expect(repository.map(SIZE, MIB)).toEqual(await expectedMap(disk, MIB));
});

/** A machine that listens at this address, too: it has a certificate of the site, and keeps what it is told. */
async function strangerAt(host: string, port: number): Promise<{ told: Buffer[] }> {
  const { layout } = await site.machine('m7', ['proxy', 'repository']);
  const [ca, cert] = [await readFile(layout.authority), await readFile(layout.certificate)];
  const told: Buffer[] = [];
  const server = createTlsServer({ ca, cert, key: cert, requestCert: true, minVersion: 'TLSv1.3' }, (socket) => {
    socket.on('data', (bytes: Buffer) => told.push(bytes)).on('error', () => undefined);
  });
  server.on('tlsClientError', () => undefined).listen(port, host);
  await once(server, 'listening');
  ends.push(() => server.close());
  return { told };
}

test('where another machine is at an address of a repository the next one is tried, and it is told nothing', async () => {
  const { host, port } = target.secureEndpoint!;
  const { unix } = target.endpoint as { unix: string };
  const { machineId } = site.own;
  const { told } = await strangerAt('127.0.0.5', port);
  const other = createServer((socket) => void socket.end('SSH-2.0-other\r\n')).listen(port, '127.0.0.4');
  await once(other, 'listening');
  ends.push(() => other.close());
  const at = (first: string, ...others: string[]): TargetEndpoint => ({
    unix,
    machineId,
    listen: { host: first, port, others },
  });
  endpoint = at('127.0.0.5', '127.0.0.4', host);
  await sourceOn(proxy).transfer(order());
  expect(repository.map(SIZE, MIB)).toEqual(await expectedMap(disk, MIB));
  expect(told).toEqual([]);

  const { restorePointId: point, run } = plain;
  const secure = clientEnd(proxy, testSeams());
  const rehearsed = (of: TargetEndpoint) => rehearse({ endpoint: of, restorePointId: point, run, secure });
  const isOther = `127.0.0.5:${port}: machine m7 answers where machine m1 should`;
  await expect(rehearsed(at('127.0.0.5', '127.0.0.5'))).rejects.toMatchObject({
    code: 'PEER_REFUSED',
    message: `${isOther}; ${isOther}`,
    hint: expect.stringContaining('`preferred` of `networks`') as string,
  });
  // Where an address gives no answer it is as lost as with one, whoever is at the others.
  for (const dead of [at('127.0.0.5', '127.0.0.2'), at('127.0.0.2', '127.0.0.5'), at('127.0.0.2', '127.0.0.4')])
    await expect(rehearsed(dead)).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringContaining('127.0.0.2') as string,
      details: { lost: true },
    });
  // What the repository itself says is its answer, and would be none other elsewhere.
  repository.lowestFence = 2;
  endpoint = at(host, '127.0.0.2');
  await expect(sourceOn(proxy).transfer(order())).rejects.toMatchObject({ code: 'FENCED' });
  const third = await site.machine('m3', ['proxy']);
  expect(
    await sourceOn(third)
      .transfer(order())
      .catch((error: unknown) => errorCodeOf(error)),
  ).toBe('PEER_REFUSED');
});

test('an address that takes the connection has the time of a greeting before it is left', async () => {
  const { host, port } = target.secureEndpoint!;
  const { machineId } = site.own;
  const unanswered: string[] = [];
  const secure = { ...clientEnd(proxy, testSeams()), onUnanswered: (at: { host: string }) => unanswered.push(at.host) };
  const none = { fence: 0, sizeBytes: 0, blockSize: 0, creditBytes: 0, diskKey: diskKey('') };
  const hello = { ...decodedHello(), purpose: 'rehearsal' as const, ...none };
  /** The address that welcomes at last. */
  const welcomedAt = async (options: { silenceMs?: number; nextAddressMs: number }): Promise<string> => {
    unanswered.length = 0;
    const at = { unix: '/nowhere', machineId, listen: { host: '127.0.0.3', port, others: [host] } };
    const { wire } = await openWire(at, hello, {
      onMessage: () => undefined,
      onEnd: () => undefined,
      secure,
      ...options,
    });
    const { remote } = wire.ends!;
    wire.close();
    return remote;
  };
  // A busy repository: its greeting takes longer than all of a connection may.
  let greeted: Promise<void> = sleep(3000);
  const busy = await startMoverTarget({
    listen: { unix: path.join(folder, 'busy', 'mover') },
    listenSecurely: { host: '127.0.0.3', port },
    laneCount: 1,
    laneEntry: fixture('target-lane'),
    laneData: { folder, security: { ...site.own, grantKey } },
    registrar: repository,
    restoreSource: repository.restoreSource(SIZE, MIB),
    rehearse: () => greeted,
    seams: testSeams(),
  });
  ends.push(() => busy.close());
  expect([await welcomedAt({ nextAddressMs: 2000 }), unanswered]).toEqual(['127.0.0.3', []]);
  // One that answers nobody is left after the time that a greeting has.
  greeted = deferred<void>().promise;
  expect([await welcomedAt({ nextAddressMs: 2000, silenceMs: 2500 }), unanswered]).toEqual([host, ['127.0.0.3']]);
});
