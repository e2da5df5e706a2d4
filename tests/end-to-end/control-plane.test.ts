import { execFileSync } from 'node:child_process';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { listLeases, listRequests } from '../../schema/catalog/leases.ts';
import { listResources } from '../../schema/catalog/resources.ts';
import { loadSession } from '../../schema/catalog/sessions.ts';
import { sessionId } from '../../schema/domain/ids.ts';
import { controlQueue } from '../../schema/domain/queues.ts';
import { backupSessionWorkflowId, vmBackupWorkflowId } from '../../schema/domain/sessions.ts';
import { simulatedJob as job, simulatedVm } from '../fixtures/machine.ts';
import { rootOf } from '../fixtures/say/say.ts';
import { startWholeStack, type WholeStack } from '../fixtures/whole-stack.ts';

let whole: WholeStack;
beforeAll(async () => {
  whole = await startWholeStack();
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', whole.machine.imageFile, '1M']);
  await whole.apply([job]);
});
afterAll(() => whole?.close());

const begin = async (id: string) => {
  const workflowId = backupSessionWorkflowId(job.jobId, sessionId(id));
  const input = { version: 1, sessionId: id, jobId: job.jobId, startedBy: 'manual', nominalTime: null, retryOf: null };
  const handle = await whole.client.workflow.start('backupSession', {
    workflowId,
    taskQueue: controlQueue,
    args: [input],
  });
  const vm = whole.client.workflow.getHandle(vmBackupWorkflowId(workflowId, simulatedVm.vmId, 1));
  return { handle, vm };
};
const isReachable = async (): Promise<boolean> => (await listResources(whole.db, 'proxy'))[0]!.reachable;
/** Heartbeats and failures of what a workflow has in work. */
async function toldBy(vm: Awaited<ReturnType<typeof begin>>['vm']): Promise<string> {
  const { raw } = await vm.describe().catch(() => ({ raw: null }));
  const told = (raw?.pendingActivities ?? []).map(({ heartbeatDetails, lastFailure }) => {
    const data = heartbeatDetails?.payloads?.[0]?.data;
    return `${data ? Buffer.from(data).toString() : ''} ${lastFailure?.message ?? ''}`;
  });
  return told.join();
}

test('a proxy that is away is waited for, by name, over a killed control worker; nobody else starts the job', async () => {
  const withoutProxy = { ...whole.machine.config, proxies: [] };
  await whole.machine.apply(withoutProxy);
  await whole.until('the proxy is known to be silent', async () => !(await isReachable()));
  const { handle, vm } = await begin('s1');
  await whole.until('it says why it waits', async () => /proxy p1 does not answer/.test(await toldBy(vm)));

  const second = await begin('s2');
  const refused = await second.handle.result().catch((error: unknown) => rootOf(error));
  expect(refused).toMatchObject({
    type: 'ALREADY_RUNNING',
    message: expect.stringContaining('session s1 of job nightly'),
  });
  expect(await loadSession(whole.db, 's2')).toBeNull();

  const { pid } = whole.child('control');
  process.kill(pid!, 'SIGKILL');
  await whole.until('control is there again', () => {
    const control = whole.child('control');
    return control.state === 'ready' && control.pid !== pid;
  });
  await whole.machine.apply(whole.machine.config);
  expect(await handle.result()).toMatchObject({ result: 'Success' });
  expect(await isReachable()).toBe(true);
  expect(await listLeases(whole.db)).toEqual([]);
});

test('a session whose workflows are terminated loses its leases and is closed; the next one runs', async () => {
  // Without the proxy's process a session gets as far as its leases, and stays there.
  await whole.machine.apply({ ...whole.machine.config, proxies: [] });
  const { handle, vm } = await begin('t1');
  await whole.until('it holds leases', async () => (await listLeases(whole.db)).length === 4);
  await handle.terminate('by hand');
  await vm.terminate('by hand');
  await whole.machine.apply(whole.machine.config);
  await whole.until('it is closed', async () => (await loadSession(whole.db, 't1'))?.state === 'Stopped', 90_000);
  expect(await listLeases(whole.db)).toEqual([]);
  expect(await listRequests(whole.db)).toEqual([]);
  expect(await loadSession(whole.db, 't1')).toMatchObject({
    state: 'Stopped',
    result: 'Failed',
    error: { code: 'STOPPED', message: expect.stringContaining('terminated') },
    vms: [{ result: 'Failed' }],
  });
  const next = await begin('t2');
  expect(await next.handle.result()).toMatchObject({ result: 'Success' });
});
