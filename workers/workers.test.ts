import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { WorkflowHandle } from '@temporalio/client';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { HostConfig } from '../schema/domain/configuration.ts';
import type { DiskAccess, VmSummary } from '../schema/domain/hypervisor.ts';
import { hostId, jobId, lineageOf, runKey, sessionId } from '../schema/domain/ids.ts';
import {
  hostCtlQueue,
  hostGuestQueue,
  hostUndoQueue,
  proxyCtlQueue,
  proxyQueue,
  repositoryCtlQueue,
} from '../schema/domain/queues.ts';
import type { OpenedRestorePoint, RestorePointSpec, TransferSummary } from '../schema/domain/restore-point.ts';
import type { TransferHeartbeat } from '../schema/domain/sessions.ts';
import { importGraph } from '../tests/fixtures/import-graph.ts';
import {
  createTestMachine,
  imageHost,
  imageVm,
  MIB,
  proxy,
  repository,
  simulatedDisk,
  simulatedHost,
  simulatedVm,
  type TestMachine,
} from '../tests/fixtures/machine.ts';
import { createSpeaker, rootOf, type Speaker } from '../tests/fixtures/say/say.ts';
import { prepareTestTemporal, startTestTemporal, type TestTemporal } from '../tests/fixtures/temporal.ts';
import { startWorker, type TestWorker } from '../tests/fixtures/worker.ts';

// Real processes, a second each on an idle machine, many times that on a busy one.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const roles = ['host', 'proxy', 'repository'] as const;
const run = runKey('abcdef012345');
const ctl = {
  simulated: hostCtlQueue(simulatedHost),
  image: hostCtlQueue(imageHost),
  proxy: proxyCtlQueue(proxy),
  repository: repositoryCtlQueue(repository),
};

async function heartbeatOf(handle: WorkflowHandle): Promise<TransferHeartbeat | null> {
  const { raw } = await handle.describe();
  const data = raw.pendingActivities?.[0]?.heartbeatDetails?.payloads?.[0]?.data;
  return data ? (JSON.parse(Buffer.from(data).toString()) as TransferHeartbeat) : null;
}

let machine: TestMachine;
let workers: TestWorker[];
beforeEach(async () => {
  machine = await createTestMachine();
  workers = [];
});
afterEach(async () => {
  for (const worker of workers) worker.end('SIGKILL');
  await Promise.all(workers.map(({ ended }) => ended));
  await machine.close();
});
const start = (name: string, temporal: TestTemporal): TestWorker => {
  const worker = startWorker(name, machine.environment(temporal));
  workers.push(worker);
  return worker;
};

it.each(roles)('%s loads neither the catalog nor a database driver', (role) => {
  const { files, packages } = importGraph(path.join(import.meta.dirname, `${role}.ts`));
  expect(files.length).toBeGreaterThan(20);
  expect(files.filter((file) => file.includes('/schema/catalog/'))).toEqual([]);
  expect(packages.filter((name) => /mysql|kysely/.test(name))).toEqual([]);
});

describe('without a server', () => {
  let absent: TestTemporal;
  beforeEach(async () => {
    absent = await prepareTestTemporal();
  });
  afterEach(() => absent.close());

  it.each(roles)(
    '%s is ready and idle while nothing is applied, and ends when told or when its parent goes',
    async (role) => {
      const [first, second] = [start(role, absent), start(role, absent)];
      await Promise.all([first.ready, second.ready]);
      first.end('SIGTERM');
      second.disconnect();
      expect([await first.ended, await second.ended]).toEqual([
        { code: 0, signal: null },
        { code: 0, signal: null },
      ]);
    },
  );

  it('waits for a server that is not there yet, and may be ended meanwhile', async () => {
    await machine.apply(machine.config);
    const [patient, ended] = [start('proxy', absent), start('proxy', absent)];
    while (!patient.log().includes('waits for Temporal') || !ended.log().includes('waits for Temporal'))
      await sleep(50);
    expect(patient.isReady).toBe(false);
    ended.end('SIGTERM');
    expect(await ended.ended).toEqual({ code: 0, signal: null });
    await absent.start();
    await patient.ready;
  });

  it('says what is wrong with a damaged configuration', async () => {
    await writeFile(machine.layout.machineFile, '{"hosts": 1}');
    const broken = start('host', absent);
    await expect(broken.ready).rejects.toThrow(/machine.json is damaged: it lacks a list/);
    expect((await broken.ended).code).toBe(1);
  });
});

describe('with a server', () => {
  let temporal: TestTemporal;
  let speaker: Speaker;
  beforeAll(async () => {
    temporal = await startTestTemporal();
    speaker = await createSpeaker(temporal);
  });
  afterAll(async () => {
    await speaker?.close();
    await temporal?.close();
  });
  const inventory = (queue: string): Promise<VmSummary[]> => speaker.tell(queue, 'listInventory');

  it('host: every host of the machine answers; killed and started again it goes on; SIGTERM ends it', async () => {
    await machine.apply(machine.config);
    const first = start('host', temporal);
    await first.ready;
    expect(await inventory(ctl.simulated)).toMatchObject([{ vm: simulatedVm, name: 'web' }]);
    expect(await inventory(ctl.image)).toMatchObject([{ vm: imageVm, name: 'files', disks: [] }]);
    const prepare = { vm: imageVm, run, consistency: 'prefer', script: null };
    expect(await speaker.tell(hostGuestQueue(imageHost), 'prepareGuest', prepare)).toMatchObject({
      warnings: [{ code: 'GUEST_UNREACHABLE' }],
    });
    await speaker.tell(hostUndoQueue(imageHost), 'thawGuest', { vm: imageVm, run, script: null });
    await expect(speaker.tell(ctl.simulated, 'inspectVm', { vm: imageVm })).rejects.toMatchObject({
      type: 'VM_NOT_FOUND',
    });
    first.end('SIGKILL');
    await first.ended;
    const waiting = inventory(ctl.simulated);
    const second = start('host', temporal);
    await second.ready;
    expect(await waiting).toMatchObject([{ name: 'web' }]);
    second.end('SIGTERM');
    expect(await second.ended).toEqual({ code: 0, signal: null });
  });

  it('host: one of a kind that this version does not know says so at each verb, and the others go on', async () => {
    const odd = hostId('odd');
    const strange = { hostId: odd, slots: 1, provider: 'mainframe', vms: [] } as unknown as HostConfig;
    await machine.apply({ ...machine.config, hosts: [strange, ...machine.config.hosts] });
    await start('host', temporal).ready;
    expect(await inventory(ctl.simulated)).toMatchObject([{ name: 'web' }]);
    const refused = { type: 'BAD_CONFIG', message: expect.stringMatching(/host odd .* mainframe/) };
    await expect(inventory(hostCtlQueue(odd))).rejects.toMatchObject(refused);
    await expect(speaker.tell(hostUndoQueue(odd), 'releaseCheckpoint', { run })).rejects.toMatchObject(refused);
  });

  const spec: RestorePointSpec = {
    run,
    lineage: lineageOf(jobId('nightly'), simulatedVm.vmId, repository),
    vm: simulatedVm,
    vmName: 'web',
    jobId: jobId('nightly'),
    sessionId: sessionId('s1'),
    nominalTime: '2026-11-25T00:00:00.000Z',
    blockSize: 1024 * 1024,
    compression: 'balanced',
  };
  const openPoint = (): Promise<OpenedRestorePoint> => speaker.tell(ctl.repository, 'openRestorePoint', spec);

  it('repository: stays up over a folder that is none, and opens it once it is one', async () => {
    await mkdir(machine.folders.repository);
    const strange = path.join(machine.folders.repository, 'holiday.jpg');
    await writeFile(strange, 'not ours');
    await machine.apply(machine.config);
    await start('repository', temporal).ready;
    await expect(openPoint()).rejects.toMatchObject({ type: 'REPOSITORY_NOT_ONE' });
    await rm(strange);
    let opened: OpenedRestorePoint | null = null;
    while (!opened) opened = await openPoint().catch(() => null);
    expect(opened.endpoint).toEqual({ machineId: 'm1', unix: path.join(machine.layout.runFolder, 'target.main.sock') });
  });

  it('repository: killed, the next process has the open restore points before it is ready', async () => {
    await machine.apply(machine.config);
    const first = start('repository', temporal);
    await start('proxy', temporal).ready;
    await first.ready;
    const { restorePointId, endpoint } = await openPoint();
    const rehearse = () => speaker.tell(ctl.proxy, 'connectMovers', { restorePointId, run, endpoint });
    await rehearse();
    first.end('SIGKILL');
    await first.ended;
    const second = start('repository', temporal);
    await second.ready;
    // The target knows it without having been told over Temporal.
    await rehearse();
    expect((await openPoint()).restorePointId).toBe(restorePointId);
    const other = start('repository', temporal);
    await other.ready;
    expect(other.log()).toMatch(/process \d+ owns the repository.*repository cannot be opened/);
    second.end('SIGTERM');
    expect(await second.ended).toEqual({ code: 0, signal: null });
  });

  it('proxy: a transfer is drained by SIGTERM and goes on from its cursor in the next process', async () => {
    const disk = { ...simulatedDisk, sizeBytes: 1024 * MIB };
    const [simulated] = machine.config.hosts as [Extract<HostConfig, { provider: 'simulated' }>];
    const hosts = [{ ...simulated, vms: [{ ...simulated.vms[0]!, disks: [disk] }] }];
    await machine.apply({ ...machine.config, hosts });
    const first = start('proxy', temporal);
    await Promise.all([first, start('repository', temporal), start('host', temporal)].map(({ ready }) => ready));
    const { restorePointId } = await openPoint();
    const { diskKey, sizeBytes } = disk;
    const identity = `sim-${disk.seed}`;
    const declared = { restorePointId, run, disks: [{ diskKey, sizeBytes, identity }] };
    await speaker.tell(ctl.repository, 'declareDisks', declared);
    const { lineage } = spec;
    const checkpoint = { run, vm: simulatedVm, lineage, disks: [diskKey], base: null, consistency: 'none' };
    await speaker.tell(ctl.simulated, 'createCheckpoint', checkpoint);
    const access = await speaker.tell<DiskAccess>(ctl.simulated, 'openAccess', { run, diskKey, reader: proxy });
    const transfer = async (assignment: number) => {
      const reason = { code: 'first', message: 'first' };
      const plan = { diskKey, sizeBytes, identity, mode: 'full', reason, baseRestorePointId: null };
      const request = { restorePointId, run, disk: plan, checkpoint: run, assignment };
      const assigned = await speaker.tell(ctl.repository, 'assignTransfer', request);
      const input = { access, assignment: assigned };
      const options = { heartbeatTimeout: '30 s' } as const;
      return await speaker.start({ queue: proxyQueue(proxy), verb: 'transferDisk', input, options });
    };
    const sending = await transfer(1);
    while (((await heartbeatOf(sending))?.windowsAcked ?? 0) === 0) await sleep(20);
    first.end('SIGTERM');
    const failure = await sending.result().catch((error: unknown) => rootOf(error));
    expect(failure).toMatchObject({ type: 'HOST_DRAINING' });
    expect(await first.ended).toEqual({ code: 0, signal: null });
    await start('proxy', temporal).ready;
    const summary = (await (await transfer(2)).result()) as TransferSummary;
    expect(summary).toMatchObject({ diskKey, windowCount: 16 });
    expect(summary.windowsSent).toBeLessThan(16);
  });

  it('all go on after the server was killed and started again', async () => {
    await machine.apply(machine.config);
    const host = start('host', temporal);
    await host.ready;
    expect(await inventory(ctl.simulated)).toHaveLength(1);
    await temporal.kill();
    await sleep(3000);
    await temporal.start();
    expect(await inventory(ctl.simulated)).toHaveLength(1);
    expect(host.isReady).toBe(true);
    host.end('SIGTERM');
    expect(await host.ended).toEqual({ code: 0, signal: null });
  });
});
