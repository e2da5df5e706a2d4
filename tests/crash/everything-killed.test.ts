/** As if the machine's power went, but for the supervisor: all processes at once, while blocks of a simulated disk flow. */
import { execFileSync } from 'node:child_process';
import { createReadStream } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { contentOf } from '../../engines/hypervisors/simulated/content.ts';
import { actOnSimulated } from '../../engines/hypervisors/simulated/model.ts';
import { listLeases, listRequests } from '../../schema/catalog/leases.ts';
import { loadSession, type SessionWithRows } from '../../schema/catalog/sessions.ts';
import type { HostConfig, JobConfig } from '../../schema/domain/configuration.ts';
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import { restorePointId, sessionId } from '../../schema/domain/ids.ts';
import { controlQueue } from '../../schema/domain/queues.ts';
import {
  backupSessionWorkflowId,
  restoreSessionWorkflowId,
  type TransferHeartbeat,
  vmBackupWorkflowId,
} from '../../schema/domain/sessions.ts';
import { MIB, simulatedDisk, simulatedHost, simulatedJob, simulatedVm } from '../fixtures/machine.ts';
import { startWholeStack, type WholeStack } from '../fixtures/whole-stack.ts';

const disk = { ...simulatedDisk, sizeBytes: 512 * MIB };
const job: JobConfig = { ...simulatedJob, compression: 'fast' };

let whole: WholeStack;
beforeAll(async () => {
  whole = await startWholeStack();
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', whole.machine.imageFile, '1M']);
  const [simulated] = whole.machine.config.hosts as [Extract<HostConfig, { provider: 'simulated' }>];
  simulated.vms[0]!.disks = [disk];
  // So that it is met in the middle: a transfer tells every two seconds how far it is.
  simulated.limits = { readBytesPerSecond: 64 * MIB, latencyMs: null };
  await whole.apply([job]);
});
afterAll(() => whole?.close());

const begin = (id: string) =>
  whole.client.workflow.start('backupSession', {
    workflowId: backupSessionWorkflowId(job.jobId, sessionId(id)),
    taskQueue: controlQueue,
    args: [{ version: 1, sessionId: id, jobId: job.jobId, startedBy: 'manual', nominalTime: null, retryOf: null }],
  });
/** The client's own connection was cut too. */
async function ended(workflowId: string): Promise<void> {
  await whole.until(
    'the session ends',
    async () => {
      const status = await whole.client.workflow
        .getHandle(workflowId)
        .describe()
        .catch(() => null);
      return status !== null && status.status.name !== 'RUNNING';
    },
    200_000,
  );
}
async function rowsOf(id: string): Promise<SessionWithRows> {
  let session: SessionWithRows | null = null;
  await whole.until('the catalog answers', async () => {
    session = await loadSession(whole.db, id).catch(() => null);
    return session !== null;
  });
  return session!;
}

async function windowsAcknowledged(workflowId: string): Promise<number> {
  const handle = whole.client.workflow.getHandle(vmBackupWorkflowId(workflowId, simulatedVm.vmId, 1));
  const { raw } = await handle.describe().catch(() => ({ raw: null }));
  const transfer = raw?.pendingActivities?.find(({ activityType }) => activityType?.name === 'transferDisk');
  const data = transfer?.heartbeatDetails?.payloads?.[0]?.data;
  return data ? (JSON.parse(Buffer.from(data).toString()) as TransferHeartbeat).windowsAcked : 0;
}

/** Offset of the first piece that differs from the simulated disk as it was at first; null: none does. */
async function firstDifference(file: string): Promise<number | null> {
  const content = { sizeBytes: disk.sizeBytes, seed: disk.seed, identity: '', writes: [] };
  let offset = 0;
  for await (const piece of createReadStream(file, { highWaterMark: 4 * MIB })) {
    const bytes = piece as Buffer;
    const expected = new Uint8Array(bytes.length);
    contentOf(content, { offset, length: bytes.length }, expected);
    if (!bytes.equals(expected)) return offset;
    offset += bytes.length;
  }
  return offset === disk.sizeBytes ? null : offset;
}

test('the session ends in Success by itself, is whole, and the next one reads only what changed', async () => {
  const { workflowId } = await begin('s1');
  await whole.until('a fifth is acknowledged', async () => (await windowsAcknowledged(workflowId)) >= 2);
  const before = whole.stack.describe().children;
  for (const { pid } of before) process.kill(pid!, 'SIGKILL');
  await whole.until('all are there again', () =>
    before.every(({ name, pid }) => whole.child(name).state === 'ready' && whole.child(name).pid !== pid),
  );
  await ended(workflowId);
  const session = await rowsOf('s1');
  expect(session).toMatchObject({ state: 'Stopped', result: 'Success', vms: [{ result: 'Success' }] });
  const [sent] = session.vms[0]!.disks;
  expect(sent!.conservation).toMatchObject({ sizeBytes: disk.sizeBytes });
  // What was acknowledged is not read again: twice at most the window each of the two lanes had in work.
  expect(sent!.readBytes).toBeLessThanOrEqual(disk.sizeBytes + 2 * WINDOW_BYTES);
  await whole.until('leases are back', async () => {
    return (await listLeases(whole.db)).length + (await listRequests(whole.db)).length === 0;
  });

  const name = 'after-all';
  const folder = whole.machine.folders.restores;
  const restore = { sessionId: 'r1', restorePointId: restorePointId(session.vms[0]!.restorePointId!), folder, name };
  const restoreId = restoreSessionWorkflowId(sessionId('r1'));
  await whole.client.workflow.start('restoreSession', {
    workflowId: restoreId,
    taskQueue: controlQueue,
    args: [{ version: 1, disks: null, format: 'raw', proxyId: null, ...restore }],
  });
  await ended(restoreId);
  expect(await firstDifference(path.join(folder, `${name}-d0.raw`))).toBeNull();

  const write = { kind: 'write', diskKey: disk.diskKey, offset: 300 * MIB, length: 4096, seed: 3 } as const;
  await actOnSimulated(whole.machine.layout.hostFolder(simulatedHost), simulatedVm.vmId, write);
  await ended((await begin('s2')).workflowId);
  expect(await rowsOf('s2')).toMatchObject({ result: 'Success', vms: [{ disks: [{ mode: 'cbt', readBytes: MIB }] }] });
}, 240_000);
