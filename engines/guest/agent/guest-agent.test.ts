import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { startFakeAgent, type FakeAgent } from './fake-agent.ts';
import { createGuestAgent, type GuestAgent } from './guest-agent.ts';

let folder: string;
let socket: string;
let fake: FakeAgent;
let agent: GuestAgent;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-agent-'));
  socket = join(folder, 'ga.sock');
  fake = await startFakeAgent(socket);
  agent = createGuestAgent({ vmId: 'vm-1', socket }, testSeams());
});
afterEach(async () => {
  agent.close();
  await fake.close();
  await rm(folder, { recursive: true, force: true });
});

test('freezes, sees the status and thaws; a second thaw is harmless', async () => {
  expect(await agent.freeze(1000)).toBe(2);
  expect(await agent.status()).toBe('frozen');
  await expect(agent.freeze(1000)).rejects.toMatchObject({ code: 'GUEST_FREEZE_FAILED' });
  expect(await agent.thaw()).toBe(2);
  expect(await agent.thaw()).toBe(0);
  expect(await agent.status()).toBe('thawed');
});

test('drops what an earlier client left over, also a cut line', async () => {
  fake.leftOver = 'ed"}\n{"return": 77}\n{"return": "frozen"}\n';
  expect(await agent.status()).toBe('thawed');
});

test('a lost synchronization is repeated with a new id', async () => {
  fake.loseSyncs = 1;
  expect(await agent.status(5000)).toBe('thawed');
  expect(fake.done).toEqual(['guest-sync-delimited', 'guest-sync-delimited', 'guest-fsfreeze-status']);
});

test('a silent agent is unreachable within the time of the call, naming vm and socket', async () => {
  fake.silent = true;
  const error = await agent.sync(200).catch((error: unknown) => error);
  expect(error).toMatchObject({ code: 'GUEST_UNREACHABLE', details: { vm: 'vm-1', socket } });
  expect((error as Error).message).toContain(`vm vm-1 at ${socket}`);
  fake.silent = false;
  await agent.sync();
});

test('the late reply of a freeze that ran over its time is not taken for the next answer', async () => {
  fake.freezeDelayMs = 400;
  await expect(agent.freeze(100)).rejects.toMatchObject({ code: 'GUEST_FREEZE_FAILED' });
  expect(await agent.status()).toBe('frozen');
  expect(await agent.thaw()).toBe(2);
});

test('a second client gets no answer while the first is connected', async () => {
  await agent.sync();
  const second = createGuestAgent({ vmId: 'vm-1', socket }, testSeams());
  await expect(second.sync(200)).rejects.toMatchObject({ code: 'GUEST_UNREACHABLE' });
  second.close();
  agent.close();
  const third = createGuestAgent({ vmId: 'vm-1', socket }, testSeams());
  await third.sync();
  third.close();
});

test('nobody listening is unreachable at once', async () => {
  const nobody = createGuestAgent({ vmId: 'vm-2', socket: join(folder, 'none.sock') }, testSeams());
  await expect(nobody.status()).rejects.toMatchObject({ code: 'GUEST_UNREACHABLE' });
});

test('a program runs to its end; its result is asked for once', async () => {
  fake.execStatuses = [
    { exited: false },
    { exited: true, exitcode: 3, 'out-data': Buffer.from('hello').toString('base64'), 'out-truncated': true },
  ];
  const result = await agent.exec({ path: '/bin/sh', args: ['-c', 'exit 3'], capture: true }, 5000);
  expect(result).toMatchObject({ exitCode: 3, signal: null, truncated: true });
  expect(result.stdout.toString()).toBe('hello');
  await expect(agent.result(42)).rejects.toThrow("Invalid parameter 'pid'");
});

test('info and file systems', async () => {
  expect(await agent.info()).toEqual({ version: '7.2', commands: ['guest-ping'] });
  expect(await agent.fsinfo()).toEqual([
    { name: 'vda', mountpoint: '/mnt', type: 'ext4', usedBytes: 1, totalBytes: 2 },
  ]);
});

test('a reply without end is cut off', async () => {
  const path = join(folder, 'flood.sock');
  const flood = Buffer.alloc(1024 * 1024, 0x61);
  const server = net.createServer((client) => {
    client.on('error', () => undefined);
    for (let mebibyte = 0; mebibyte < 8; mebibyte += 1) client.write(flood);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const flooded = createGuestAgent({ vmId: 'vm-3', socket: path }, testSeams());
  await expect(flooded.status()).rejects.toThrow('longer than');
  flooded.close();
  server.close();
});
