import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { siteId, vmId } from '../../../schema/domain/ids.ts';
import type { MonitorEvent } from '../../../schema/domain/seams.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import type { KeptVm } from './protocol.ts';
import { createRescuer, type Execute, type Rescuer } from './rescuer.ts';

const vm: KeptVm = { vmId: vmId('v1'), qmp: '/none', site: siteId('s1') };
const noSpace: MonitorEvent = { event: 'BLOCK_IO_ERROR', data: { nospace: true, action: 'stop' }, atMs: 0 };
const stop: MonitorEvent = { event: 'STOP', data: {}, atMs: 0 };
const ours = 'td-s1-abcdefghij01-job0';

let folder: string;
let rescuer: Rescuer;
let said: string[];
let jobs: { id: string; type: string }[];
let exports: { id: string }[];
let status: string;
const execute: Execute = (command, args) => {
  if (command === 'query-jobs') return Promise.resolve([...jobs]);
  if (command === 'query-status') return Promise.resolve({ status });
  if (command === 'query-block-exports') return Promise.resolve(exports);
  said.push([command, args?.['id']].filter(Boolean).join(' '));
  jobs = jobs.filter((job) => command !== 'job-cancel' || job.id !== args?.['id']);
  if (command === 'cont') status = 'running';
  return Promise.resolve({});
};

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-rescue-'));
  rescuer = createRescuer(folder, testSeams());
  await rescuer.start();
  said = [];
  jobs = [];
  exports = [];
  status = 'io-error';
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test('ends exports and backup jobs of ours only, then lets the guest go on, and remembers it', async () => {
  const export0 = 'td-s1-abcdefghij01-exp0';
  exports = [{ id: 'theirs' }, { id: export0 }, { id: 'td-s1-abcdefghij02-exp0' }, { id: 'td-s2-abcdefghij01-exp0' }];
  jobs = [
    { id: ours, type: 'backup' },
    { id: 'td-s2-abcdefghij01-job0', type: 'backup' },
    { id: 'libvirt-backup', type: 'backup' },
    { id: 'td-s1-abcdefghij01-job1', type: 'stream' },
  ];
  const rescue = await rescuer.onEvent(vm, noSpace, execute);
  expect(said).toEqual([`block-export-del ${export0}`, `job-cancel ${ours}`, 'cont']);
  expect(rescue).toMatchObject({ vmId: 'v1', run: 'abcdefghij01', jobs: [ours] });
  const next = createRescuer(folder, testSeams());
  await next.start();
  expect(next.rescues('v1')).toEqual([rescue]);
  expect(next.rescues('v2')).toEqual([]);
});

test('a guest out of its own space is left alone', async () => {
  jobs = [{ id: 'td-s2-abcdefghij01-job0', type: 'backup' }];
  expect(await rescuer.onEvent(vm, noSpace, execute)).toBe(null);
  expect(await rescuer.onEvent(vm, stop, execute)).toBe(null);
  expect(said).toEqual([]);
});

test('a guest stopped by a person, or for another error of a disk, is left alone', async () => {
  jobs = [{ id: ours, type: 'backup' }];
  status = 'paused';
  expect(await rescuer.onEvent(vm, stop, execute)).toBe(null);
  expect(await rescuer.onEvent(vm, { ...noSpace, data: { nospace: false } }, execute)).toBe(null);
  expect(said).toEqual([]);
});

test('a guest that stops once more right after is let go on again, and counted once', async () => {
  jobs = [{ id: ours, type: 'backup' }];
  await Promise.all([rescuer.onEvent(vm, noSpace, execute), rescuer.onEvent(vm, noSpace, execute)]);
  status = 'io-error';
  expect(await rescuer.onEvent(vm, stop, execute)).toBe(null);
  expect(said).toEqual([`job-cancel ${ours}`, 'cont', 'cont']);
  expect(rescuer.rescues('v1')).toHaveLength(1);
});

test('a guest found stopped when its monitor is connected is helped, too', async () => {
  jobs = [{ id: ours, type: 'backup' }];
  expect(await rescuer.onConnected(vm, execute)).toMatchObject({ jobs: [ours] });
  expect(said).toEqual([`job-cancel ${ours}`, 'cont']);
});
