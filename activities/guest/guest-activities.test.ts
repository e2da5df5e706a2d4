import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CancelledFailure } from '@temporalio/common';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startFakeAgent, type FakeAgent } from '../../engines/guest/agent/fake-agent.ts';
import { connectKeeper, type KeeperClient } from '../../engines/guest/keeper/client.ts';
import { startGuestKeeper, type GuestKeeper } from '../../engines/guest/keeper/guest-keeper.ts';
import { vmOff } from '../../engines/guest/keeper/monitor-link.ts';
import type { GuestScript } from '../../schema/domain/configuration.ts';
import { hostId, runKey, siteId, vmId } from '../../schema/domain/ids.ts';
import type { ConsistencyPolicy } from '../../schema/domain/states.ts';
import { runActivity } from '../../tests/fixtures/activity.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import type { GuestActivities } from '../contract.ts';
import { createGuestActivities } from './guest-activities.ts';

const vm = { vmId: vmId('11111111-1111-4111-8111-111111111111'), hostId: hostId('h1') };
const run = runKey('abcdefghij01');
const script: GuestScript = { path: '/opt/quiesce', args: ['now'], timeoutMs: 5000 };
const seams = testSeams();

const prepare = (of: GuestActivities, consistency: ConsistencyPolicy, asked: GuestScript | null = null) =>
  runActivity((input: Parameters<GuestActivities['prepareGuest']>[0]) => of.prepareGuest(input), {
    vm,
    run,
    consistency,
    script: asked,
  }).result;
const complete = (of: GuestActivities, asked: GuestScript | null) =>
  runActivity((input: Parameters<GuestActivities['completeGuest']>[0]) => of.completeGuest(input), {
    vm,
    run,
    script: asked,
  }).result;
const thaw = (of: GuestActivities, asked: GuestScript | null = null) =>
  runActivity((input: Parameters<GuestActivities['thawGuest']>[0]) => of.thawGuest(input), { vm, run, script: asked })
    .result;

describe('through the keeper', () => {
  let folder: string;
  let agent: FakeAgent | null;
  let keeper: GuestKeeper;
  let client: KeeperClient;
  let isOn: boolean;
  let activities: GuestActivities;
  const keep = (): Promise<GuestKeeper> =>
    startGuestKeeper({
      socket: join(folder, 'keeper.sock'),
      stateFolder: join(folder, 'state'),
      loadVms: () =>
        Promise.resolve([{ vmId: vm.vmId, qmp: join(folder, 'q'), agent: join(folder, 'ga'), site: siteId('s1') }]),
      seams,
      // A monitor that answers nothing, or none.
      openMonitor: (kept) =>
        isOn
          ? Promise.resolve({
              execute: () => Promise.resolve({}),
              closed: new Promise(() => undefined),
              close: () => undefined,
            })
          : Promise.reject(vmOff(kept, undefined)),
    });
  const stopAgent = async (): Promise<void> => {
    await agent?.close();
    agent = null;
  };

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'td-ga-'));
    await mkdir(join(folder, 'state'));
    isOn = true;
    agent = await startFakeAgent(join(folder, 'ga'));
    keeper = await keep();
    client = connectKeeper({ socket: join(folder, 'keeper.sock'), seams });
    activities = createGuestActivities({ guests: client, quiesce: 'agent', clock: seams.clock });
  });
  afterEach(async () => {
    client.close();
    await keeper.stop(1000);
    await stopAgent();
    await rm(folder, { recursive: true, force: true });
  });

  it('asks whether the agent is there, and runs the script once however often it is told', async () => {
    expect(await prepare(activities, 'require', script)).toEqual({ warnings: [] });
    expect(await prepare(activities, 'require', script)).toEqual({ warnings: [] });
    expect(agent!.done.filter((command) => command === 'guest-exec')).toHaveLength(1);
  });

  it('asks nothing of the guest under none without a script', async () => {
    expect(await prepare(activities, 'none')).toEqual({ warnings: [] });
    expect(agent!.done).toEqual([]);
  });

  it.each([
    ['require', 'fails'],
    ['prefer', 'warns'],
    ['none', 'warns'],
  ] as const)('a script that ends with 3: under %s it %s', async (consistency, how) => {
    agent!.execStatuses = [
      { exited: true, exitcode: 3, 'err-data': Buffer.from('database is locked\n').toString('base64') },
    ];
    const message = `pre-freeze script /opt/quiesce in VM ${vm.vmId} ended with exit code 3: database is locked`;
    const preparing = prepare(activities, consistency, script);
    if (how === 'fails') await expect(preparing).rejects.toMatchObject({ type: 'GUEST_REQUIRED', message });
    else expect(await preparing).toEqual({ warnings: [{ level: 'warning', code: 'GUEST_SCRIPT_FAILED', message }] });
  });

  it('a VM that runs without its agent fails under require and warns under prefer', async () => {
    await stopAgent();
    while ((await client.vms())[0]!.monitor === 'off') await seams.clock.sleep(10);
    await expect(prepare(activities, 'require')).rejects.toMatchObject({ type: 'GUEST_REQUIRED', nonRetryable: true });
    expect(await prepare(activities, 'prefer')).toMatchObject({ warnings: [{ code: 'GUEST_UNREACHABLE' }] });
  });

  it('a VM that is off has nothing to prepare, whatever was asked', async () => {
    await stopAgent();
    await keeper.stop(1000);
    isOn = false;
    keeper = await keep();
    const off = { level: 'info', code: 'VM_OFF', message: `VM ${vm.vmId} is off: there is no guest to prepare` };
    expect(await prepare(activities, 'require', script)).toEqual({ warnings: [off] });
  });

  it('thaws what this run froze, and only that; then runs the script', async () => {
    await client.freezer.freeze(vm, run, 5000);
    expect(await thaw(activities, script)).toEqual({ warnings: [] });
    expect(agent!.frozen).toBe(false);
    expect(agent!.done.at(-1)).toBe('guest-exec-status');
    expect(await thaw(activities)).toEqual({ warnings: [] });
    await client.freezer.freeze(vm, runKey('abcdefghij02'), 5000);
    expect(await thaw(activities)).toEqual({ warnings: [] });
    expect(agent!.frozen).toBe(true);
  });

  it('a guest that was never frozen needs no agent to be thawed; a failing script after it is a warning', async () => {
    await stopAgent();
    expect(await thaw(activities)).toEqual({ warnings: [] });
    expect(await thaw(activities, script)).toMatchObject({ warnings: [{ code: 'GUEST_UNREACHABLE' }] });
    expect(await complete(activities, script)).toMatchObject({ warnings: [{ code: 'GUEST_UNREACHABLE' }] });
    expect(await complete(activities, null)).toEqual({ warnings: [] });
  });

  it('waits for a keeper that is being restarted', async () => {
    await keeper.stop(1000);
    const preparing = prepare(activities, 'require');
    await seams.clock.sleep(400);
    keeper = await keep();
    expect(await preparing).toEqual({ warnings: [] });
  });

  it('does not wait for a script once it is cancelled; heartbeats before', async () => {
    agent!.execStatuses = Array.from({ length: 200 }, () => ({ exited: false }));
    const running = runActivity(
      (input: Parameters<GuestActivities['prepareGuest']>[0]) => activities.prepareGuest(input),
      { vm, run, consistency: 'require', script },
    );
    while (!agent!.done.includes('guest-exec-status')) await seams.clock.sleep(10);
    expect(running.beats.length).toBeGreaterThan(0);
    running.cancel();
    await expect(running.result).rejects.toBeInstanceOf(CancelledFailure);
  });
});

describe('hosts whose VMs have no agent', () => {
  const none = createGuestActivities({ guests: null, quiesce: 'none', clock: seams.clock });
  const message = `VM ${vm.vmId} has no guest agent: host h1 knows none`;

  it('go on under none and prefer, the latter with a warning, and fail under require', async () => {
    expect(await prepare(none, 'none')).toEqual({ warnings: [] });
    expect(await prepare(none, 'prefer')).toEqual({
      warnings: [{ level: 'warning', code: 'GUEST_UNREACHABLE', message }],
    });
    await expect(prepare(none, 'require')).rejects.toMatchObject({ type: 'GUEST_REQUIRED', message });
  });

  it('thaw without a word, and warn of scripts that cannot be run', async () => {
    expect(await thaw(none)).toEqual({ warnings: [] });
    expect(await prepare(none, 'none', script)).toMatchObject({ warnings: [{ code: 'GUEST_UNREACHABLE' }] });
    expect(await thaw(none, script)).toMatchObject({ warnings: [{ code: 'GUEST_UNREACHABLE' }] });
  });

  it('need none where the hypervisor itself quiesces', async () => {
    const itself = createGuestActivities({ guests: null, quiesce: 'hypervisor', clock: seams.clock });
    expect(await prepare(itself, 'require')).toEqual({ warnings: [] });
    await expect(prepare(itself, 'require', script)).rejects.toMatchObject({ type: 'GUEST_REQUIRED' });
  });
});
