import { expect, test } from 'vitest';
import { hostId } from '../../schema/domain/ids.ts';
import { brakesFor, brakesForRestore } from './brakes.ts';

const limits = (latencyMs: number) => ({ readBytesPerSecond: null, latencyMs });
const host = {
  hostId: hostId('h1'),
  limits: limits(90),
  datastores: [
    { name: 'all', folder: '/vms', limits: limits(60) },
    { name: 'ssd', folder: '/vms/ssd', limits: limits(20) },
  ],
};

test('the host, and the innermost datastore the file lies in', () => {
  const namesOf = (file: string | null) => brakesFor(host, file).brakes?.map(({ name }) => name);
  expect(namesOf('/vms/ssd/a.qcow2')).toEqual(['host h1', 'datastore ssd']);
  expect(namesOf('/vms/ssd2/a.qcow2')).toEqual(['host h1', 'datastore all']);
  expect(namesOf('/elsewhere/a')).toEqual(['host h1']);
  expect(namesOf(null)).toEqual(['host h1']);
  expect(brakesFor({ hostId: hostId('h2') }, '/vms/a')).toEqual({});
});

test('of a restore, those of the datastore that its folder lies in, and of its host', () => {
  const image = { ...host, provider: 'image' as const, slots: 1, vms: [] };
  const other = { ...image, hostId: hostId('h2'), datastores: [{ name: 'nfs', folder: '/nfs', limits: limits(70) }] };
  const plain = { provider: 'image' as const, hostId: hostId('h3'), slots: 1, vms: [], limits: limits(10) };
  const namesOf = (folder: string) =>
    brakesForRestore([plain, other, image], folder).brakes?.map(({ name }) => name) ?? [];
  expect(namesOf('/vms/ssd')).toEqual(['host h1', 'datastore ssd']);
  expect(namesOf('/vms/restores/web')).toEqual(['host h1', 'datastore all']);
  expect(namesOf('/nfs/../nfs/x')).toEqual(['host h2', 'datastore nfs']);
  expect(namesOf('/restores')).toEqual([]);
});
