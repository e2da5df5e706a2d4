/** A real guest with a real agent, frozen by the real keeper; the tests' own copy is taken in the same transaction. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Extent } from '../../../schema/domain/extents.ts';
import type { Checkpoint, CheckpointSpec, ReferencePoint } from '../../../schema/domain/hypervisor.ts';
import { diskKey, hostId, lineageId, proxyId, runKey, siteId, vmId } from '../../../schema/domain/ids.ts';
import { startRecords, stopRecords } from '../../../tests/fixtures/guest/records.ts';
import { type Guest, startGuest, whyNoGuest } from '../../../tests/fixtures/guest/start-guest.ts';
import { openTestAgent, type TestAgent } from '../../../tests/fixtures/guest/test-agent.ts';
import { createOracle, expectCleanExt4, type Oracle } from '../../../tests/fixtures/oracle.ts';
import { openRawMonitor, type RawMonitor } from '../../../tests/fixtures/raw-monitor.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { needsRecovery, recordsIn } from '../../../tests/fixtures/world/expect-restored.ts';
import { connectKeeper, type KeeperClient } from '../../guest/keeper/client.ts';
import { type GuestKeeper, startGuestKeeper } from '../../guest/keeper/guest-keeper.ts';
import { openReader } from '../open-reader.ts';
import type { HypervisorProvider } from '../provider.ts';
import { createQemuProvider } from './provider.ts';
import type { QmpAction } from './qmp-shapes.ts';

// An emulated guest, on a machine that may have other work.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const why = await whyNoGuest();
const MIB = 1024 * 1024;
const seams = testSeams();
const site = siteId('s1');
const vm = { vmId: vmId('44444444-4444-4444-8444-444444444444'), hostId: hostId('h1') };
const lineage = lineageId('00000000000000aa');
const sizes = { data: 48 * MIB, other: 32 * MIB };
const keys = ['data', 'other'] as const;

describe.skipIf(why !== null)(`the qemu provider on a real guest${why === null ? '' : ` (left out: ${why})`}`, () => {
  let folder: string;
  let guest: Guest;
  let keeper: GuestKeeper;
  let client: KeeperClient;
  let monitor: RawMonitor;
  let oracle: Oracle;
  let agent: TestAgent;
  let provider: HypervisorProvider;
  const before = new Map<string, Buffer>();
  let base: ReferencePoint | null = null;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'td-qg-'));
    const disks = keys.map((key) => ({
      key,
      file: join(folder, `${key}.qcow2`),
      format: 'qcow2' as const,
      sizeBytes: sizes[key],
    }));
    guest = await startGuest({ folder, disks });
    const kept = { vmId: vm.vmId, qmp: guest.qmpSocket, agent: guest.agentSocket, site };
    const socket = join(folder, 'keeper.sock');
    keeper = await startGuestKeeper({
      socket,
      stateFolder: join(folder, 'keeper'),
      loadVms: () => Promise.resolve([kept]),
      seams,
    });
    client = connectKeeper({ socket, seams });
    monitor = await openRawMonitor(guest.testQmpSocket);
    agent = await openTestAgent(guest.testAgentSocket);
    const actions = join(folder, 'actions.json');
    oracle = createOracle(
      monitor,
      join(folder, 'oracle'),
      actions,
      keys.map((key) => ({ key, sizeBytes: sizes[key] })),
    );
    provider = createQemuProvider({
      host: {
        hostId: vm.hostId,
        slots: 1,
        provider: 'qemu',
        scratch: { folder: join(folder, 'scratch'), maxBytes: 256 * MIB },
        vms: [{ name: 'v1', vmId: vm.vmId, qmp: guest.qmpSocket, agent: guest.agentSocket }],
      },
      site,
      stateFolder: join(folder, 'state'),
      monitorOf: (id) => client.monitor(id),
      seams,
      extraActions: async () => JSON.parse(await readFile(actions, 'utf8').catch(() => '[]')) as QmpAction[],
    });
  });
  afterAll(async () => {
    await provider?.close();
    agent?.close();
    monitor?.close();
    client?.close();
    await keeper?.stop(1000);
    await guest?.kill();
    await rm(folder, { recursive: true, force: true });
  });

  const read = async ({ run, disks }: Checkpoint): Promise<Map<string, Buffer>> => {
    const all = new Map<string, Buffer>();
    for (const { diskKey: key, sizeBytes, verdict } of disks) {
      const reader = await openReader(await provider.openAccess(run, key, proxyId('p1')), seams);
      const changed: Extent[] = [];
      if (verdict.use === 'changes')
        for await (const extent of reader.changedExtents({ offset: 0, length: sizeBytes })) changed.push(extent);
      else changed.push({ offset: 0, length: sizeBytes });
      const bytes = Buffer.from(before.get(key) ?? Buffer.alloc(sizeBytes, 0xee));
      for (const { offset, length } of changed)
        await reader.read({ offset, length }, bytes.subarray(offset, offset + length), new AbortController().signal);
      await reader.close();
      all.set(key, bytes);
    }
    return all;
  };

  /** A whole session, while the guest writes without a pause, compared with the copies QEMU took at the instant. */
  const session = async (label: string): Promise<Checkpoint> => {
    await oracle.arm(label);
    const spec: CheckpointSpec = {
      run: runKey(label.padEnd(12, '0')),
      vm,
      lineage,
      disks: keys.map((key) => diskKey(key)),
      base,
      consistency: 'require',
    };
    const checkpoint = await provider.createCheckpoint(spec, client.freezer);
    expect(await client.freezer.isFrozen(vm)).toBe(false);
    await agent.run('head -c 6000000 /dev/urandom > /mnt/other/late; sync');
    const bytes = await read(checkpoint);
    const copies = await oracle.copies(label);
    for (const key of keys) {
      expect(bytes.get(key)!.equals(await readFile(copies[key]!)), `disk ${key} of ${label}`).toBe(true);
      expect(await needsRecovery(copies[key]!), `journal of ${key}`).toBe(false);
      await expectCleanExt4(copies[key]!);
      before.set(key, bytes.get(key)!);
    }
    expect(await recordsIn(copies['data']!)).toBeGreaterThan(0);
    await provider.closeAccess(spec.run);
    base = (await provider.releaseCheckpoint(spec.run)).referencePoint;
    await provider.commitReferencePoint(lineage, base!);
    return checkpoint;
  };

  it('frozen for the instant and no longer, whole at the instant, also in the increments', async () => {
    await startRecords(agent, 'data');
    const first = await session('full');
    expect(first).toMatchObject({ reached: 'filesystem', leftOut: [] });
    expect(first.frozenMs).toBeGreaterThan(0);
    expect(first.frozenMs).toBeLessThan(10_000);
    for (const label of ['inc1', 'inc2']) {
      const next = await session(label);
      expect(next.disks.map(({ verdict }) => verdict.use)).toEqual(['changes', 'changes']);
      expect(next.reached).toBe('filesystem');
    }
    await stopRecords(agent);
    expect(await monitor.execute('query-jobs')).toEqual([]);
    expect(await monitor.execute('query-block-exports')).toEqual([]);
  });

  it('not frozen, the journal is to be replayed: the oracle can tell', async () => {
    await agent.run('head -c 100000 /dev/urandom > /mnt/data/x; sync');
    await oracle.arm('crash');
    const spec = { run: runKey('crash0000000'), vm, lineage, disks: [diskKey('data'), diskKey('other')], base };
    const checkpoint = await provider.createCheckpoint({ ...spec, consistency: 'none' }, client.freezer);
    const copies = await oracle.copies('crash');
    expect(checkpoint.reached).toBe('crash');
    expect(await needsRecovery(copies['data']!)).toBe(true);
    await provider.releaseCheckpoint(spec.run);
    await provider.discardReferencePoint(spec.run);
  });

  it('a guest whose agent is gone: required is refused and leaves nothing, preferred is crash-consistent', async () => {
    await agent.launch('sleep 0.2; killall -STOP qemu-ga');
    agent.close();
    const agentIs = (): Promise<string> =>
      client.status(vm).then(
        () => 'there',
        () => 'silent',
      );
    await expect.poll(agentIs, { timeout: 60_000 }).toBe('silent');
    const spec = { vm, lineage, disks: [diskKey('data')], base };
    const create = (run: string, consistency: 'require' | 'prefer'): Promise<Checkpoint> =>
      provider.createCheckpoint({ ...spec, run: runKey(run), consistency }, client.freezer);
    await expect(create('require00000', 'require')).rejects.toMatchObject({ code: 'GUEST_REQUIRED' });
    expect(await provider.findCheckpoint(runKey('require00000'))).toBeNull();
    expect(await monitor.execute('query-jobs')).toEqual([]);
    const preferred = await create('prefer000000', 'prefer');
    expect(preferred).toMatchObject({ reached: 'crash', reachedWhy: { code: 'GUEST_UNREACHABLE' }, frozenMs: null });
    expect(preferred.disks.map(({ verdict }) => verdict.use)).toEqual(['changes']);
  });
});
