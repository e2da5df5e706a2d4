/** A host some of whose VMs do not answer: its lists come to their end, with what the others say. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { VmSummary } from '../../../schema/domain/hypervisor.ts';
import { vmId } from '../../../schema/domain/ids.ts';
import type { Clock, Monitor } from '../../../schema/domain/seams.ts';
import { makeQemuWorld, MIB, type QemuWorld, runOf, vmRef } from '../../../tests/fixtures/qemu-world.ts';
import type { QemuProviderOptions } from './provider.ts';

const AT_ONCE = 8;
const VM_LIMIT_MS = 10_000;
const ALL_LIMIT_MS = 45_000;

let world: QemuWorld;
let asked: number;
/** Those that wait for time to pass, which it does when the test says so. */
let sleepers: { durationMs: number; wake: () => void }[];
let nowMs: number;
let isOver: boolean;

beforeEach(async () => {
  [asked, sleepers, nowMs, isOver] = [0, [], 0, false];
  world = await makeQemuWorld();
});
afterEach(async () => {
  isOver = true;
  await world.close();
});

const clock: Clock = {
  now: () => nowMs,
  monotonic: () => nowMs,
  sleep: (durationMs, signal) =>
    new Promise((resolve) => {
      const sleeper = { durationMs, wake: resolve };
      if (isOver) resolve();
      sleepers.push(sleeper);
      signal?.addEventListener('abort', () => {
        sleepers = sleepers.filter((one) => one !== sleeper);
        resolve();
      });
    }),
};

/** A QEMU that is stuck in its storage answers nothing at all. */
const silent: Monitor = {
  execute: () => {
    asked += 1;
    return new Promise<never>(() => undefined);
  },
  events: () => ({ [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => undefined) }) }),
};

/** The last of the VMs is the one that answers. */
function restartAmong(silentCount: number): void {
  const [vm] = world.host.vms;
  const others = Array.from({ length: silentCount }, (_, index) => ({
    name: `silent${index}`,
    vmId: vmId(`44444444-0000-4000-8000-${String(index).padStart(12, '0')}`),
    qmp: `${world.monitorSocket}-${index}`,
  }));
  const over: Partial<QemuProviderOptions> = {
    host: { ...world.host, vms: [...others, vm!] },
    monitorOf: (id) => (id === vmRef.vmId ? world.monitor : silent),
    seams: { ...world.seams, clock },
  };
  world.restartWorker(over);
}

/** Lets as many as are looked at at once be waited for in vain, `rounds` times. */
async function passTime(rounds: number): Promise<void> {
  for (let round = 1; round <= rounds; round += 1) {
    await expect.poll(() => asked).toBe(round * AT_ONCE);
    const late = sleepers.splice(0);
    expect(late.map(({ durationMs }) => durationMs)).toEqual(Array.from({ length: AT_ONCE }, () => VM_LIMIT_MS));
    nowMs += VM_LIMIT_MS;
    for (const { wake } of late) wake();
  }
}

async function inventory(): Promise<VmSummary[]> {
  const all: VmSummary[] = [];
  for await (const summary of world.provider.listVms()) all.push(summary);
  return all;
}
const sizes = ({ disks }: VmSummary): number[] | null => disks && disks.map(({ sizeBytes }) => sizeBytes);

it('the inventory: they are looked at side by side, and nothing is said of their disks', async () => {
  restartAmong(3 * AT_ONCE);
  const listing = inventory();
  await passTime(3);
  const all = await listing;
  expect(all.map(({ name }) => name)).toEqual([...Array.from({ length: 24 }, (_, i) => `silent${i}`), 'vm1']);
  expect(all.map(sizes)).toEqual([...Array.from({ length: 24 }, () => null), [4 * MIB, 5 * MIB]]);
});

it('what is ours: of the others it is listed', async () => {
  await world.session(1, null);
  await world.provider.close();
  restartAmong(3 * AT_ONCE);
  const listing = world.listed();
  await passTime(3);
  expect((await listing).map(({ run }) => run)).toEqual([runOf(1), runOf(1)]);
});

it('too many of them: the list ends in time all the same, without those it did not come to', async () => {
  restartAmong(20 * AT_ONCE);
  const listing = inventory();
  await passTime(Math.floor(ALL_LIMIT_MS / VM_LIMIT_MS));
  await expect.poll(() => asked).toBe(5 * AT_ONCE);
  expect(new Set(sleepers.map(({ durationMs }) => durationMs))).toEqual(new Set([5000]));
  nowMs = ALL_LIMIT_MS;
  for (const { wake } of sleepers.splice(0)) wake();
  const all = await listing;
  expect(all).toHaveLength(20 * AT_ONCE + 1);
  expect(all.map(sizes).every((each) => each === null)).toBe(true);
  expect(asked).toBe(5 * AT_ONCE);
});
