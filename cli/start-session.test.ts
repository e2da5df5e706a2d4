import type { Client } from '@temporalio/client';
import { expect, it } from 'vitest';
import { MAX_VMS_PER_JOB } from '../schema/domain/configuration.ts';
import { hostId, vmId } from '../schema/domain/ids.ts';
import { job } from '../tests/fixtures/control.ts';
import { startBackup } from './start-session.ts';

it.each([
  [1, '10 s'],
  [100, '10 s'],
  [101, '2 min'],
  [MAX_VMS_PER_JOB, '2 min'],
])('a session of %i VMs may be taken up again within %s', async (count, expected) => {
  let asked: unknown = null;
  const start = async (_type: string, options: unknown): Promise<unknown> => {
    asked = options;
    return { firstExecutionRunId: 'r' };
  };
  const client = { withDeadline: (_at: number, call: () => unknown) => call(), workflow: { start } };
  const vms = Array.from({ length: count }, (_, i) => ({
    hostId: hostId('h1'),
    name: `vm-${i}`,
    vmId: vmId(`vm-${i}`),
    excludeDisks: [],
  }));
  await startBackup(client as unknown as Client, { ...job, vms });
  expect(asked).toMatchObject({ workflowTaskTimeout: expected });
});
