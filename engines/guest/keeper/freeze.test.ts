import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { hostId, runKey, siteId, vmId } from '../../../schema/domain/ids.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { startFakeAgent, type FakeAgent } from '../agent/fake-agent.ts';
import { connectKeeper, type KeeperClient } from './client.ts';
import { startGuestKeeper, type GuestKeeper } from './guest-keeper.ts';
import type { OpenMonitor } from './monitor-link.ts';
import { vmOff } from './monitor-link.ts';

const vm = { vmId: vmId('11111111-1111-4111-8111-111111111111'), hostId: hostId('h1') };
const run = runKey('abcdefghij01');
const other = runKey('abcdefghij02');
const off: OpenMonitor = (vm) => Promise.reject(vmOff(vm, undefined));

let folder: string;
let fake: FakeAgent;
let keeper: GuestKeeper | null;
let client: KeeperClient;
let looksAfter = true;
const children: ChildProcess[] = [];
const ledger = async (): Promise<{ frozen: { vmId: string; run: string }[] }> =>
  JSON.parse(await readFile(join(folder, 'state/frozen.json'), 'utf8')) as never;
const keep = async (): Promise<GuestKeeper> =>
  await startGuestKeeper({
    socket: join(folder, 'keeper.sock'),
    stateFolder: join(folder, 'state'),
    loadVms: () =>
      Promise.resolve(
        looksAfter
          ? [{ vmId: vm.vmId, qmp: join(folder, 'none.sock'), agent: join(folder, 'ga.sock'), site: siteId('s1') }]
          : [],
      ),
    seams: testSeams(),
    openMonitor: off,
  });
const thawed = async (): Promise<void> => {
  await vi.waitFor(() => expect(fake.frozen).toBe(false), { timeout: 5000 });
  await vi.waitFor(async () => expect((await ledger()).frozen).toEqual([]), { timeout: 5000 });
};

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-keeper-'));
  await mkdir(join(folder, 'state'));
  looksAfter = true;
  fake = await startFakeAgent(join(folder, 'ga.sock'));
  keeper = await keep();
  client = connectKeeper({ socket: join(folder, 'keeper.sock'), seams: testSeams() });
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  client.close();
  await keeper?.stop(1000);
  await fake.close();
  await rm(folder, { recursive: true, force: true });
});

/** A process that freezes and then does nothing; resolves when the guest is frozen. */
async function freezeInAnotherProcess(deadlineMs: number): Promise<ChildProcess> {
  const script = `
    const s = require('node:net').connect(${JSON.stringify(join(folder, 'keeper.sock'))});
    s.write(JSON.stringify({ id: 1, verb: 'freeze', params: { vm: '${vm.vmId}', run: '${run}', deadlineMs: ${deadlineMs} } }) + '\\n');
    s.on('data', (d) => console.log(String(d)));`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  expect(JSON.parse(line.toString())).toEqual({ id: 1, result: { fileSystems: 2 } });
  return child;
}

test('freeze and thaw by the caller; asked again, the thaw gives the same answer', async () => {
  expect(await client.freezer.freeze(vm, run, 5000)).toEqual({ fileSystems: 2 });
  expect(await client.freezer.isFrozen(vm)).toBe(true);
  expect((await ledger()).frozen).toMatchObject([{ vmId: vm.vmId, run }]);
  expect((await client.vms())[0]).toMatchObject({ agent: 'connected', monitor: 'off', frozen: { run } });
  const thaw = await client.freezer.thaw(vm, run);
  expect(thaw).toMatchObject({ fileSystems: 2, byUs: true });
  expect(await client.freezer.isFrozen(vm)).toBe(false);
  expect(await client.freezer.thaw(vm, run)).toEqual(thaw);
  expect((await ledger()).frozen).toEqual([]);
});

test('the ledger names the guest before the guest is asked to freeze', async () => {
  fake.freezeDelayMs = 300;
  const freezing = client.freezer.freeze(vm, run, 5000);
  await vi.waitFor(() => expect(fake.done).toContain('guest-fsfreeze-freeze'));
  expect(fake.frozen).toBe(false);
  expect((await ledger()).frozen).toMatchObject([{ vmId: vm.vmId, run }]);
  await freezing;
});

test('one freeze at a time; another run neither freezes nor thaws this one', async () => {
  await client.freezer.freeze(vm, run, 5000);
  await expect(client.freezer.freeze(vm, other, 5000)).rejects.toMatchObject({ code: 'GUEST_FREEZE_FAILED' });
  expect(await client.freezer.thaw(vm, other)).toEqual({ fileSystems: 0, byUs: false, frozenMs: 0 });
  expect(fake.frozen).toBe(true);
});

test('thaws at the deadline; the thaw of the caller says that it came too late', async () => {
  await client.freezer.freeze(vm, run, 150);
  await thawed();
  expect(await client.freezer.thaw(vm, run)).toMatchObject({ byUs: false });
});

test('a freeze that hangs counts against the deadline and is thawed whatever came of it', async () => {
  fake.freezeDelayMs = 600;
  await expect(client.freezer.freeze(vm, run, 200)).rejects.toMatchObject({ code: 'GUEST_FREEZE_FAILED' });
  await vi.waitFor(() => expect(fake.done).toContain('guest-fsfreeze-thaw'), { timeout: 10_000 });
  await thawed();
});

test('a refused freeze leaves nothing in the ledger', async () => {
  fake.refuseFreeze = true;
  await expect(client.freezer.freeze(vm, run, 2000)).rejects.toMatchObject({ code: 'GUEST_FREEZE_FAILED' });
  await thawed();
  fake.refuseFreeze = false;
  await client.freezer.freeze(vm, other, 2000);
});

test('a freeze answered with nonsense may have been done: the guest is thawed', async () => {
  fake.fileSystems = -1;
  await expect(client.freezer.freeze(vm, run, 5000)).rejects.toMatchObject({ code: 'GUEST_FREEZE_FAILED' });
  fake.fileSystems = 2;
  await thawed();
});

test('an agent that never answered was not frozen: nothing is left in the ledger', async () => {
  fake.silent = true;
  await expect(client.freezer.freeze(vm, run, 300)).rejects.toMatchObject({ code: 'GUEST_UNREACHABLE' });
  expect((await ledger()).frozen).toEqual([]);
  fake.silent = false;
  await client.freezer.freeze(vm, other, 5000);
});

test('the guest that cuts the connection in the freeze is thawed', async () => {
  fake.freezeDelayMs = 300;
  const freezing = client.freezer.freeze(vm, run, 5000);
  await vi.waitFor(() => expect(fake.done).toContain('guest-fsfreeze-freeze'));
  fake.dropClient();
  await expect(freezing).rejects.toMatchObject({ code: 'GUEST_FREEZE_FAILED' });
  await vi.waitFor(() => expect(fake.done).toContain('guest-fsfreeze-thaw'), { timeout: 5000 });
  await thawed();
});

test('thaws when the caller is killed', async () => {
  const caller = await freezeInAnotherProcess(10_000);
  expect(fake.frozen).toBe(true);
  caller.kill('SIGKILL');
  await thawed();
});

test('thaws when the caller is killed while the freeze is under way', async () => {
  fake.freezeDelayMs = 300;
  const socket = net.connect(join(folder, 'keeper.sock'));
  socket.write(`${JSON.stringify({ id: 1, verb: 'freeze', params: { vm: vm.vmId, run, deadlineMs: 9000 } })}\n`);
  await vi.waitFor(() => expect(fake.done).toContain('guest-fsfreeze-freeze'));
  socket.destroy();
  await vi.waitFor(() => expect(fake.done).toContain('guest-fsfreeze-thaw'), { timeout: 5000 });
  await thawed();
});

test('thaws at the deadline when the caller is merely stopped', async () => {
  const caller = await freezeInAnotherProcess(300);
  caller.kill('SIGSTOP');
  await thawed();
});

test('at its start thaws what the ledger shows frozen, and does not give up on a silent guest', async () => {
  await keeper!.stop();
  fake.frozen = true;
  fake.silent = true;
  const entry = { vmId: vm.vmId, run, agent: join(folder, 'ga.sock'), deadlineAtMs: 1 };
  await writeFile(join(folder, 'state/frozen.json'), JSON.stringify({ version: 1, frozen: [entry] }));
  keeper = await keep();
  await expect(client.freezer.freeze(vm, other, 1000)).rejects.toMatchObject({ code: 'GUEST_FREEZE_FAILED' });
  fake.silent = false;
  await thawed();
});

test.each(['{"version":1,"fro', '{"version":1,"frozen":[null]}', '{"version":1,"frozen":[{"vmId":"x"}]}', '[]'])(
  'a damaged ledger means that every guest is thawed: %s',
  async (text) => {
    await keeper!.stop();
    fake.frozen = true;
    await writeFile(join(folder, 'state/frozen.json'), text);
    keeper = await keep();
    await thawed();
  },
);

test('thaws all before it stops; a client finds the next keeper by itself', async () => {
  await client.freezer.freeze(vm, run, 10_000);
  expect(await keeper!.stop()).toEqual([]);
  expect(fake.frozen).toBe(false);
  await expect(client.ping()).rejects.toMatchObject({ code: 'UNREACHABLE' });
  keeper = await keep();
  expect(await client.ping()).toEqual({ pid: process.pid });
});

test('the socket is for its owner only, and a second keeper does not take it', async () => {
  expect((await stat(join(folder, 'keeper.sock'))).mode & 0o777).toBe(0o600);
  await expect(keep()).rejects.toMatchObject({ code: 'PLATFORM_BUSY' });
  await client.ping();
});

test('runs a guest program once per key, also over a restart of the keeper', async () => {
  fake.execStatuses = [{ exited: false }, { exited: true, exitcode: 5, 'out-data': 'aGk=' }];
  const script = { key: `${run}/pre`, path: '/bin/true', args: [], timeoutMs: 5000 };
  const result = await client.exec(vm, script);
  expect(result).toEqual({ exitCode: 5, signal: null, stdout: 'aGk=', stderr: '', truncated: false });
  await keeper!.stop();
  keeper = await keep();
  expect(await client.exec(vm, script)).toEqual(result);
  expect(fake.done.filter((verb) => verb === 'guest-exec')).toHaveLength(1);
});

test('a guest that leaves the question after its program unanswered is asked again', async () => {
  fake.execStatuses = [{ exited: false }, 'cut', 'cut', { exited: true, exitcode: 0 }];
  const script = { key: `${run}.pre-freeze`, path: '/bin/true', args: [], timeoutMs: 60_000 };
  expect(await client.exec(vm, script)).toMatchObject({ exitCode: 0 });
  expect(fake.done.filter((verb) => verb === 'guest-exec')).toHaveLength(1);
});

test('a program that the guest refused to start may be asked for again', async () => {
  const script = { key: `${run}/pre`, path: '/bin/true', args: [], timeoutMs: 5000 };
  fake.frozen = true;
  await expect(client.exec(vm, script)).rejects.toMatchObject({ code: 'GUEST_UNREACHABLE' });
  fake.frozen = false;
  expect(await client.exec(vm, script)).toMatchObject({ exitCode: 0 });
});

test('programs of one run follow each other, also when nobody waits for the first any more', async () => {
  const ended = { exited: true, exitcode: 0 };
  fake.execStatuses = [{ exited: false }, { exited: false }, ended, ended];
  const program = (place: string) => ({ key: `${run}.${place}`, path: `/bin/${place}`, args: [], timeoutMs: 5000 });
  const before = client.exec(vm, program('pre-freeze'));
  const after = client.exec(vm, program('post-thaw'));
  await Promise.all([before, after]);
  const verbs = fake.done.filter((verb) => verb.startsWith('guest-exec'));
  expect(verbs.lastIndexOf('guest-exec')).toBeGreaterThan(verbs.indexOf('guest-exec-status') + 2);
});

test('a program whose first wait timed out still holds up the next of its run', async () => {
  const ended = { exited: true, exitcode: 0 };
  fake.execStatuses = [{ exited: false }, { exited: false }, ended, ended];
  const program = (place: string, timeoutMs: number) => ({
    key: `${run}.${place}`,
    path: '/bin/true',
    args: [],
    timeoutMs,
  });
  await expect(client.exec(vm, program('pre-freeze', 100))).rejects.toMatchObject({ code: 'GUEST_UNREACHABLE' });
  expect(await client.exec(vm, program('post-thaw', 5000))).toMatchObject({ exitCode: 0 });
  // The first one's end was learnt on the way.
  expect(await client.exec(vm, program('pre-freeze', 100))).toMatchObject({ exitCode: 0 });
});

test('a program is started as soon as the agent can be asked', async () => {
  fake.silent = true;
  const program = { key: `${run}.post-thaw`, path: '/bin/true', args: [], timeoutMs: 15_000 };
  const started = client.exec(vm, program);
  await new Promise((resolve) => setTimeout(resolve, 6000));
  fake.silent = false;
  expect(await started).toMatchObject({ exitCode: 0 });
});

test('the agent of a VM that is no longer looked after is let go', async () => {
  await client.status(vm);
  expect(fake.hasClient).toBe(true);
  looksAfter = false;
  await keeper!.reload();
  await vi.waitFor(() => expect(fake.hasClient).toBe(false));
});

test('bad requests are answered; a caller that breaks the protocol is dropped', async () => {
  await expect(client.freezer.freeze(vm, runKey('short'), 10)).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  await expect(client.monitor(vmId('unknown')).execute('stop')).rejects.toMatchObject({ code: 'VM_NOT_FOUND' });
  await expect(client.monitor(vm).execute('stop')).rejects.toMatchObject({ code: 'VM_OFF' });
  for (const line of ['not json\n', '[]\n', '{"id":"x"}\n', 'x'.repeat(1024 * 1024 + 2)]) {
    const socket = net.connect(join(folder, 'keeper.sock'));
    socket.on('error', () => undefined);
    socket.write(line);
    await once(socket, 'close');
  }
  await client.ping();
});
