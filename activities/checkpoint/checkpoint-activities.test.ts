import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { createFakeFreezer } from '../../engines/hypervisors/contract.ts';
import { actOnSimulated } from '../../engines/hypervisors/simulated/model.ts';
import { createSimulatedProvider } from '../../engines/hypervisors/simulated/provider.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { CheckpointSpec } from '../../schema/domain/hypervisor.ts';
import { diskKey, hostId, lineageId, proxyId, runKey, siteId, vmId } from '../../schema/domain/ids.ts';
import { runActivity } from '../../tests/fixtures/activity.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { createInventoryActivities } from '../inventory/inventory-activities.ts';
import { type CheckpointDependencies, createCheckpointActivities } from './checkpoint-activities.ts';

const vm = { vmId: vmId('11111111-0000-4000-8000-000000000001'), hostId: hostId('sim1') };
const disk = { diskKey: diskKey('d0'), sizeBytes: 1024 * 1024, seed: 1 };
const run = runKey('aaaaaaaaaaaa');
const spec: CheckpointSpec = {
  run,
  vm,
  lineage: lineageId('0'.repeat(16)),
  disks: [disk.diskKey],
  base: null,
  consistency: 'none',
};
let folder: string;
let parts: CheckpointDependencies;
let activities: ReturnType<typeof createInventoryActivities> & ReturnType<typeof createCheckpointActivities>;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-ca-'));
  const provider = createSimulatedProvider({
    host: {
      hostId: vm.hostId,
      slots: 1,
      provider: 'simulated',
      vms: [{ name: 'vm1', vmId: vm.vmId, disks: [disk] }],
    },
    site: siteId('s1'),
    stateFolder: folder,
    seams: testSeams(),
  });
  parts = { site: siteId('s1'), provider, freezer: createFakeFreezer() };
  activities = { ...createInventoryActivities({ provider }), ...createCheckpointActivities(parts) };
});
afterEach(() => rm(folder, { recursive: true }));

it('says the verbs of a backup, from inventory to commit, each as often as it is told', async () => {
  const tell = async <I, R>(verb: (input: I) => Promise<R>, of: I): Promise<R> => {
    const first = await runActivity(verb, of).result;
    expect(await runActivity(verb, of).result).toEqual(first);
    return first;
  };
  expect(await runActivity(activities.listInventory, undefined).result).toMatchObject([{ vm, name: 'vm1' }]);
  expect((await tell(activities.inspectVm, { vm })).disks).toMatchObject([
    { diskKey: 'd0', sizeBytes: disk.sizeBytes },
  ]);
  expect(await tell(activities.createCheckpoint, spec)).toMatchObject({ run, reached: 'crash' });
  const access = await tell(activities.openAccess, { run, diskKey: disk.diskKey, reader: proxyId('p1') });
  expect(access).toMatchObject({ run, diskKey: 'd0', sizeBytes: disk.sizeBytes, writable: false });
  const { referencePoint } = await tell(activities.releaseCheckpoint, { run });
  await tell(activities.commitReferencePoint, { lineage: spec.lineage, keep: referencePoint! });
  const next = { ...spec, run: runKey('cccccccccccc'), base: referencePoint };
  expect((await tell(activities.createCheckpoint, next)).disks).toMatchObject([{ verdict: { use: 'changes' } }]);
});

it('releases a checkpoint whose handles cannot be closed', async () => {
  await runActivity(activities.createCheckpoint, spec).result;
  vi.spyOn(parts.provider, 'closeAccess').mockRejectedValueOnce(new TidemarkError('PLATFORM_BUSY', 'the exports stay'));
  expect((await runActivity(activities.releaseCheckpoint, { run }).result).referencePoint).not.toBeNull();
  expect((await runActivity(activities.listArtifactRuns, undefined).result).temporary).toEqual([]);
});

it('tells whose artifacts there are, and removes those of the runs named, of its own site', async () => {
  await runActivity(activities.createCheckpoint, spec).result;
  const other = runKey('bbbbbbbbbbbb');
  await runActivity(activities.createCheckpoint, { ...spec, run: other }).result;
  const both = { temporary: [run, other], referencePoints: [run, other] };
  const list = () => runActivity(activities.listArtifactRuns, undefined).result;
  expect(await list()).toEqual(both);
  const foreign = createCheckpointActivities({ ...parts, site: siteId('s2') });
  expect(await runActivity(foreign.listArtifactRuns, undefined).result).toEqual({ temporary: [], referencePoints: [] });
  expect(await runActivity(foreign.removeArtifacts, both).result).toEqual({ removed: [], failed: [] });
  const of = { temporary: [run], referencePoints: [run] };
  const { removed, failed } = await runActivity(activities.removeArtifacts, of).result;
  expect(removed.map(({ what }) => what)).toEqual([
    `checkpoint of run ${run} on simulated VM vm1`,
    `reference point of run ${run} on simulated VM vm1`,
  ]);
  expect(failed).toEqual([]);
  expect(await list()).toEqual({ temporary: [other], referencePoints: [other] });
  const fault = {
    kind: 'fault',
    verb: 'removeArtifact',
    times: 1,
    code: 'PLATFORM_BUSY',
    message: 'it migrates',
  } as const;
  await actOnSimulated(folder, vm.vmId, fault);
  const rest = { temporary: [other], referencePoints: [other] };
  expect(await runActivity(activities.removeArtifacts, rest).result).toMatchObject({
    removed: [{ what: expect.stringContaining('reference point') }],
    failed: [{ run: other, why: 'it migrates' }],
  });
});

it('heartbeats while a verb takes long, translates its error, and does not leave it half done when cancelled', async () => {
  const delayed = { kind: 'fault', verb: 'createCheckpoint', times: 1, delayMs: 3200 } as const;
  await actOnSimulated(folder, vm.vmId, { ...delayed, code: 'PLATFORM_BUSY', message: 'vm1 is migrating' });
  const running = runActivity(activities.createCheckpoint, spec);
  running.cancel();
  await expect(running.result).rejects.toMatchObject({
    type: 'PLATFORM_BUSY',
    message: 'vm1 is migrating',
    nonRetryable: false,
  });
  expect(running.beats.length).toBeGreaterThan(1);
});
