import { describe, expect, it } from 'vitest';
import type { InventoryVm } from '../../schema/catalog/resources.ts';
import type { JobConfig } from '../../schema/domain/configuration.ts';
import type { VmSummary } from '../../schema/domain/hypervisor.ts';
import { diskKey, hostId, jobId, repositoryId, vmId } from '../../schema/domain/ids.ts';
import { expectedBytes } from './expected-bytes.ts';
import { type Known, planVms as plan } from './plan-vms.ts';

const job = (...vms: [host: string, name: string, excluded?: string[]][]): JobConfig => ({
  jobId: jobId('nightly'),
  vms: vms.map(([host, name, excluded = []]) => ({
    hostId: hostId(host),
    name,
    vmId: vmId(name),
    excludeDisks: excluded.map(diskKey),
  })),
  repositoryId: repositoryId('main'),
  proxies: [],
  consistency: 'none',
  scripts: { preFreeze: null, postThaw: null, success: null },
  compression: 'balanced',
  blockSize: 1024 * 1024,
  maxParallelVms: 2,
  hostWaitMs: 0,
});
const summary = (host: string, name: string, disks = ['d0', 'd1']): VmSummary => ({
  vm: { vmId: vmId(name), hostId: hostId(host) },
  name,
  power: 'on',
  disks: disks.map((key) => ({ diskKey: diskKey(key), sizeBytes: 1 })),
});
const remembered = (host: string, name: string, inspectedAt: string | null): InventoryVm => ({
  vmId: vmId(name),
  hostId: host,
  name,
  inspectedAt,
  summary: inspectedAt === null ? null : summary(host, name),
});
/** Of restore points nothing is known. */
const planVms = (of: JobConfig, known: Omit<Known, 'stored'>) => plan(of, { stored: [], ...known });
const answered = (host: string, ...vms: VmSummary[]) => ({ hostId: hostId(host), vms });

it('plans the VMs of the job in its order, with what their hosts say', () => {
  const known = { inventories: [answered('h1', summary('h1', 'b'), summary('h1', 'a'))], remembered: [], only: null };
  expect(planVms(job(['h1', 'a', ['d1']], ['h1', 'b']), known)).toEqual({
    vms: [
      {
        vm: { vmId: 'a', hostId: 'h1' },
        name: 'a',
        excludeDisks: ['d1'],
        position: 0,
        diskCount: 1,
        expectedBytes: 1,
      },
      { vm: { vmId: 'b', hostId: 'h1' }, name: 'b', excludeDisks: [], position: 1, diskCount: 2, expectedBytes: 1 },
    ],
    warnings: [],
  });
});

it('tries again only what the job still has, and never calls nothing a success', () => {
  const known = { inventories: [answered('h1', summary('h1', 'a'))], remembered: [] };
  const planned = planVms(job(['h1', 'a']), { ...known, only: new Set([vmId('a'), vmId('gone')]) });
  expect(planned.vms).toHaveLength(1);
  expect(planned.warnings).toMatchObject([{ level: 'warning', message: expect.stringContaining('gone') }]);
  expect(() => planVms(job(['h1', 'a']), { ...known, only: new Set([vmId('gone')]) })).toThrow(/gone/);
});

it('follows a VM to another host, and warns of a disk that is left out but not there', () => {
  const known = { inventories: [answered('h1'), answered('h2', summary('h2', 'a'))], remembered: [], only: null };
  const planned = planVms(job(['h1', 'a', ['d7']]), known);
  expect(planned.vms[0]!.vm.hostId).toBe('h2');
  expect(planned.warnings.map(({ level, code }) => `${level} ${code}`)).toEqual(['info VM_MOVED', 'warning NOT_FOUND']);
});

it('takes the last inventory of a host that is silent, and says how old it is, once per host', () => {
  const planned = planVms(job(['h1', 'a'], ['h1', 'b'], ['h2', 'c']), {
    inventories: [],
    remembered: [
      remembered('h1', 'a', '2026-11-02T00:00:00.000Z'),
      remembered('h1', 'b', '2026-11-01T00:00:00.000Z'),
      remembered('h2', 'c', null),
    ],
    only: null,
  });
  expect(planned.vms.map(({ diskCount }) => diskCount)).toEqual([2, 2, null]);
  expect(planned.warnings.map(({ message }) => message)).toEqual([
    'host h1 does not answer; of its VMs the last inventory is used (seen 2026-11-01T00:00:00.000Z)',
    'host h2 does not answer; of its VMs the last inventory is used (never seen)',
  ]);
});

it('a VM that is nowhere is planned with a warning; when all are, the plan fails', () => {
  const known = {
    inventories: [answered('h1', summary('h1', 'a'))],
    remembered: [remembered('h1', 'gone', '2026-11-01T00:00:00.000Z')],
    only: null,
  };
  const planned = planVms(job(['h1', 'a'], ['h1', 'gone']), known);
  expect(planned.vms.map(({ name, diskCount }) => [name, diskCount])).toEqual([
    ['a', 2],
    ['gone', null],
  ]);
  expect(planned.warnings).toMatchObject([{ code: 'VM_NOT_FOUND', message: expect.stringContaining('gone') }]);
  expect(() => planVms(job(['h1', 'gone']), known)).toThrow('job nightly: no such VM: gone on host h1');
});

it('of a VM that its host could not look at, takes the disks last seen, and calls none missing', () => {
  const unseen = (name: string): VmSummary => ({ ...summary('h1', name), disks: null });
  const planned = planVms(job(['h1', 'a', ['d1']], ['h1', 'new', ['d1']]), {
    inventories: [answered('h1', unseen('a'), unseen('new'))],
    remembered: [remembered('h1', 'a', '2026-11-01T00:00:00.000Z'), remembered('h1', 'new', null)],
    only: null,
  });
  expect(planned.vms.map(({ diskCount, expectedBytes: bytes }) => [diskCount, bytes])).toEqual([
    [1, expectedBytes([], 1)],
    [null, expectedBytes([], null)],
  ]);
  expect(planned.warnings).toEqual([]);
});

it('refuses a job of more VMs than a session can take, and tries again those of it that failed', () => {
  const known = { inventories: [], remembered: [remembered('h1', 'vm-7', '2026-11-01T00:00:00.000Z')], only: null };
  const jobOf = (count: number) => job(...Array.from({ length: count }, (_, i): [string, string] => ['h1', `vm-${i}`]));
  expect(() => planVms(jobOf(1001), known)).toThrow(
    expect.objectContaining({
      code: 'JOB_TOO_LARGE',
      message: 'job nightly is to back up 1001 VMs, and one session takes 1000 at most: split it into several jobs',
      details: { jobId: 'nightly', vms: 1001, limit: 1000 },
    }),
  );
  expect(planVms(jobOf(1000), known).vms).toHaveLength(1000);
  expect(planVms(jobOf(1001), { ...known, only: new Set([vmId('vm-7')]) }).vms).toHaveLength(1);
});

it('takes only the VMs named', () => {
  const known = {
    inventories: [answered('h1', summary('h1', 'a'), summary('h1', 'b'))],
    remembered: [],
    only: new Set([vmId('b')]),
  };
  expect(planVms(job(['h1', 'a'], ['h1', 'b']), known).vms.map(({ name, position }) => [name, position])).toEqual([
    ['b', 0],
  ]);
});

describe('what a restore point is expected to take', () => {
  const increment = (storedBytes: number) => ({ storedBytes, isIncrement: true });
  const full = (storedBytes: number) => ({ storedBytes, isIncrement: false });
  it.each([
    ['of a VM never seen: nobody knows', [], null, null],
    ['of a VM never read: half of its disks', [], 1000, 500],
    ['of one read in full: a quarter of that', [full(400)], 1000, 100],
    ['of increments: the largest of the last five, and a margin', [10, 20, 40, 8, 4, 9999].map(increment), 1000, 50],
    ['of increments that stored nothing: nothing', [increment(0), full(400)], 1000, 0],
  ])('%s', (_what, before, sizeBytes, expected) => {
    expect(expectedBytes(before, sizeBytes)).toBe(expected);
  });

  it('is that of the VM itself', () => {
    const known = { inventories: [answered('h1', summary('h1', 'a'), summary('h1', 'b'))], remembered: [], only: null };
    const stored = [
      { vmId: 'b', ...increment(80) },
      { vmId: 'a', ...increment(8) },
    ];
    const planned = plan(job(['h1', 'a'], ['h1', 'b']), { ...known, stored });
    expect(planned.vms.map((vm) => vm.expectedBytes)).toEqual([10, 100]);
  });
});
