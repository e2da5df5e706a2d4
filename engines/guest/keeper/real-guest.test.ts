/** The keeper's own process against a real guest with a real agent; what the guest did is seen through its second agent. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { hostId, runKey, vmId } from '../../../schema/domain/ids.ts';
import type { MonitorEvent } from '../../../schema/domain/seams.ts';
import { startGuest, whyNoGuest, type Guest } from '../../../tests/fixtures/guest/start-guest.ts';
import { guestExec } from '../../../tests/fixtures/guest/test-agent.ts';
import { openRawMonitor } from '../../../tests/fixtures/raw-monitor.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { connectKeeper, type KeeperClient } from './client.ts';

const missing = await whyNoGuest();
const keeperFile = new URL('../../../workers/keeper.ts', import.meta.url).pathname;
const vm = { vmId: vmId('22222222-2222-4222-8222-222222222222'), hostId: hostId('h1') };
const run = runKey('abcdefghij01');
const patience = { timeout: 15_000, interval: 50 };

describe.skipIf(missing !== null)(`a real guest${missing === null ? '' : ` (skipped: ${missing})`}`, () => {
  let folder: string;
  let guest: Guest;
  let keeper: ChildProcess;
  let client: KeeperClient;
  let probes = 0;
  const children: ChildProcess[] = [];

  const startKeeper = async (): Promise<void> => {
    const environment = {
      ...process.env,
      TIDEMARK_STATE: folder,
      TIDEMARK_LOG: process.env['TIDEMARK_LOG'] ?? 'fatal',
    };
    keeper = spawn(process.execPath, [keeperFile], {
      env: environment,
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    expect((await once(keeper, 'message'))[0]).toEqual({ ready: true });
  };
  const endKeeper = async (signal: NodeJS.Signals): Promise<void> => {
    if (keeper.exitCode !== null || keeper.signalCode !== null) return;
    const gone = once(keeper, 'exit');
    keeper.kill(signal);
    await gone;
  };
  /** A write in the guest that ends only when its file system is not frozen; says whether it has ended. */
  const startWrite = async (): Promise<() => Promise<boolean>> => {
    const name = `probe-${(probes += 1)}`;
    const script = `(echo x > /mnt/d0/${name} && echo done > /run/${name}) >/dev/null 2>&1 &`;
    await guestExec(guest.testAgentSocket, script);
    return async () => (await guestExec(guest.testAgentSocket, `cat /run/${name}`, { mayFail: true })).exitCode === 0;
  };
  /** Freezes from another process, which then does nothing more. */
  const freezeInAnotherProcess = async (deadlineMs: number): Promise<ChildProcess> => {
    const request = { id: 1, verb: 'freeze', params: { vm: vm.vmId, run, deadlineMs } };
    const script = `const s = require('node:net').connect(${JSON.stringify(join(folder, 'run/keeper.sock'))});
      s.write(${JSON.stringify(JSON.stringify(request))} + '\\n'); s.on('data', (d) => console.log(String(d)));`;
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    children.push(child);
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    expect(JSON.parse(line.toString())).toEqual({ id: 1, result: { fileSystems: 1 } });
    return child;
  };

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'td-rg-'));
    const disks = [{ key: 'd0', file: join(folder, 'd0.qcow2'), format: 'qcow2' as const }];
    guest = await startGuest({ folder, disks });
    const vms = [{ name: 'v1', vmId: vm.vmId, qmp: guest.qmpSocket, agent: guest.agentSocket }];
    const host = { hostId: 'h1', slots: 1, provider: 'qemu', scratch: { folder, maxBytes: 1 }, vms };
    await mkdir(join(folder, 'config'));
    const machine = { site: 's1', machineId: 'm1', hosts: [host], proxies: [], repositories: [] };
    await writeFile(join(folder, 'config/machine.json'), JSON.stringify(machine));
    await startKeeper();
    client = connectKeeper({ socket: join(folder, 'run/keeper.sock'), seams: testSeams() });
  });
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
  });
  afterAll(async () => {
    client?.close();
    if (keeper) await endKeeper('SIGKILL');
    await guest?.kill();
    await rm(folder, { recursive: true, force: true });
  });

  test('freeze stops writes, thaw lets them go on', async () => {
    expect(await client.freezer.freeze(vm, run, 10_000)).toEqual({ fileSystems: 1 });
    expect(await client.freezer.isFrozen(vm)).toBe(true);
    const written = await startWrite();
    expect(await written()).toBe(false);
    expect(await client.freezer.thaw(vm, run)).toMatchObject({ fileSystems: 1, byUs: true });
    await vi.waitFor(async () => expect(await written()).toBe(true), patience);
    expect(await client.status(vm)).toMatchObject({ freeze: 'thawed', fileSystems: [{ type: 'ext4' }] });
    expect(await client.vms()).toMatchObject([{ monitor: 'connected', agent: 'connected', frozen: null }]);
  });

  test('runs a program in the guest', async () => {
    const script = { key: 'k1', path: '/bin/sh', args: ['-c', 'echo hello; exit 7'], timeoutMs: 10_000 };
    const result = await client.exec(vm, script);
    expect(result.exitCode).toBe(7);
    expect(Buffer.from(result.stdout, 'base64').toString()).toBe('hello\n');
    expect(await client.exec(vm, script)).toEqual(result);
  });

  test('caller killed while frozen: the guest is thawed', async () => {
    const caller = await freezeInAnotherProcess(10_000);
    const written = await startWrite();
    expect(await written()).toBe(false);
    caller.kill('SIGKILL');
    await vi.waitFor(async () => expect(await written()).toBe(true), { timeout: 5000, interval: 50 });
    expect(await client.freezer.isFrozen(vm)).toBe(false);
  });

  test('caller stopped while frozen: the guest is thawed at the deadline', async () => {
    const caller = await freezeInAnotherProcess(1500);
    const written = await startWrite();
    caller.kill('SIGSTOP');
    await vi.waitFor(async () => expect(await written()).toBe(true), patience);
    expect(await client.freezer.thaw(vm, run)).toMatchObject({ byUs: false });
  });

  test('keeper killed while frozen: the next keeper thaws', async () => {
    await client.freezer.freeze(vm, run, 10_000);
    const written = await startWrite();
    await endKeeper('SIGKILL');
    expect(await written()).toBe(false);
    await startKeeper();
    await vi.waitFor(async () => expect(await written()).toBe(true), patience);
    expect(await client.freezer.isFrozen(vm)).toBe(false);
  });

  test('keeper asked to end while frozen: thaws first', async () => {
    await client.freezer.freeze(vm, run, 10_000);
    const written = await startWrite();
    await endKeeper('SIGTERM');
    expect(keeper.exitCode).toBe(0);
    await vi.waitFor(async () => expect(await written()).toBe(true), patience);
    await startKeeper();
  });

  const root = process.getuid?.() === 0;
  test.skipIf(!root)(
    `full scratch space: backup cancelled, guest goes on${root ? '' : ' (skipped: mount needs root)'}`,
    async () => {
      const scratch = join(folder, 'scratch');
      await mkdir(scratch);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', scratch]);
      const oracle = await openRawMonitor(guest.testQmpSocket);
      const stop = new AbortController();
      try {
        await guestExec(guest.testAgentSocket, 'dd if=/dev/urandom of=/mnt/d0/big bs=1M count=20 && sync');
        execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', join(scratch, 'fl0.qcow2'), String(64 * 1024 * 1024)]);
        const monitor = client.monitor(vm);
        const file = { driver: 'file', filename: join(scratch, 'fl0.qcow2') };
        await monitor.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'fl0', file, backing: 'd0' });
        const job = `td-s1-${run}-job0`;
        const backup = { 'job-id': job, device: 'd0', target: 'fl0', sync: 'none' };
        await monitor.execute('transaction', { actions: [{ type: 'blockdev-backup', data: backup }] });
        const seen: MonitorEvent[] = [];
        const reading = (async () => {
          for await (const event of monitor.events(stop.signal)) seen.push(event);
        })();
        const overwrite = 'dd if=/dev/urandom of=/mnt/d0/big bs=1M count=20 conv=notrunc && sync';
        await guestExec(guest.testAgentSocket, overwrite, { timeoutMs: 20_000 });
        await vi.waitFor(() => expect(seen.map((event) => event.event)).toContain('scratch-full'), patience);
        const rescue = { vmId: vm.vmId, run, jobs: [job] };
        expect(seen.find((event) => event.event === 'scratch-full')?.data).toMatchObject(rescue);
        expect(seen.map((event) => event.event)).toEqual(expect.arrayContaining(['BLOCK_IO_ERROR', 'STOP', 'RESUME']));
        expect(await client.rescues(vm)).toMatchObject([rescue]);
        expect(await oracle.execute('query-jobs')).toEqual([]);
        expect(await oracle.execute('query-status')).toMatchObject({ status: 'running' });
        await monitor.execute('blockdev-del', { 'node-name': 'fl0' });
        stop.abort();
        await reading;
      } finally {
        stop.abort();
        oracle.close();
        execFileSync('umount', ['-l', scratch]);
      }
    },
  );

  test('refusals of QEMU come with class and description; a killed VM is off at once', async () => {
    const refused = client.monitor(vm).execute('device_del', { id: 'none' });
    await expect(refused).rejects.toMatchObject({ code: 'HYPERVISOR_ERROR', details: { class: 'DeviceNotFound' } });
    const events = client.monitor(vm).events(new AbortController().signal);
    const ended = (async () => {
      for await (const event of events) expect(event.event).not.toBe('scratch-full');
    })();
    await client.monitor(vm).execute('query-status');
    await guest.kill();
    await ended;
    await expect(client.monitor(vm).execute('query-status')).rejects.toMatchObject({ code: 'VM_OFF' });
    await expect(client.freezer.freeze(vm, run, 1000)).rejects.toMatchObject({ code: 'GUEST_UNREACHABLE' });
  });
});
