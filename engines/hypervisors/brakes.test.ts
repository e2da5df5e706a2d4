import { expect, test } from 'vitest';
import { hostId } from '../../schema/domain/ids.ts';
import { brakesFor } from './brakes.ts';

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
