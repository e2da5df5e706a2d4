import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { actOnSimulated, type GuestLine, readSimulated } from '../../engines/hypervisors/simulated/model.ts';
import { listRestorePoints } from '../../schema/catalog/restore-points.ts';
import { listEvents } from '../../schema/catalog/events.ts';
import { listLeases, listRequests } from '../../schema/catalog/leases.ts';
import type { JobConfig, RepositoryConfig } from '../../schema/domain/configuration.ts';
import { diskKey, jobId, type DiskKey } from '../../schema/domain/ids.ts';
import { parseRepositoryFile } from '../../schema/repository/documents.ts';
import { unlock } from '../../schema/repository/keys.ts';
import { rotateKeyOf } from '../../cli/actions/repository-keys.ts';
import { describeWorkflow } from '../../cli/temporal-access.ts';
import { listSessions } from '../../schema/catalog/sessions.ts';
import { type TransferHeartbeat, vmBackupWorkflowId } from '../../schema/domain/sessions.ts';
import { imageHost, imageVm, MIB, repository, simulatedDisk, simulatedHost, simulatedVm } from '../fixtures/machine.ts';
import { dataKeysUsed } from '../fixtures/repository/keys-used.ts';
import { secretsIn } from '../fixtures/repository/keys.ts';
import { sessionsOf } from '../fixtures/whole-sessions.ts';
import { startWholeStack, type WholeStack } from '../fixtures/whole-stack.ts';

/** What the two jobs have in common. */
const rules = {
  repositoryId: repository,
  proxies: [],
  scripts: { preFreeze: null, postThaw: null, success: null },
  compression: 'balanced' as const,
  blockSize: MIB,
  maxParallelVms: 2,
  hostWaitMs: 900_000,
} satisfies Partial<JobConfig>;
const simulated: JobConfig = {
  ...rules,
  jobId: jobId('simulated'),
  vms: [{ hostId: simulatedHost, name: 'web', vmId: simulatedVm.vmId, excludeDisks: [] }],
  consistency: 'none',
};
const images: JobConfig = {
  ...rules,
  jobId: jobId('images'),
  vms: [{ hostId: imageHost, name: 'files', vmId: imageVm.vmId, excludeDisks: [] }],
  consistency: 'prefer',
};

/** The repository is encrypted: so is all that these tests back up and restore. */
const PASSPHRASE = 'nobody-guesses-Tuesday-77';
let whole: WholeStack;
beforeAll(async () => {
  whole = await startWholeStack();
  const passphraseFile = path.join(whole.machine.root, 'passphrase');
  await writeFile(passphraseFile, `${PASSPHRASE}\n`, { mode: 0o600 });
  const [plain] = whole.machine.config.repositories as [RepositoryConfig];
  whole.machine.config.repositories = [{ ...plain, encryption: { passphraseFile } }];
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', whole.machine.imageFile, '96M']);
  await whole.apply([simulated, images]);
});
afterAll(() => whole?.close());

const { backUp, restore } = sessionsOf(() => whole);

async function nothingLeft(): Promise<void> {
  expect(await listLeases(whole.db)).toEqual([]);
  expect(await listRequests(whole.db)).toEqual([]);
}

const key: DiskKey = diskKey('d0');
const bytesNow = async (): Promise<Buffer> =>
  Buffer.from(await readSimulated(whole.machine.layout.hostFolder(simulatedHost), simulatedDisk, simulatedVm.vmId));

test('a simulated VM: full, then what changed, each restored byte for byte', async () => {
  const first = await backUp(simulated);
  expect(first).toMatchObject({ state: 'Stopped', result: 'Success', error: null });
  const [vm] = first.vms;
  expect(vm).toMatchObject({ result: 'Success', consistency: 'crash', disks: [{ diskKey: key, mode: 'full' }] });
  const before = await bytesNow();

  const write = { kind: 'write', diskKey: key, offset: 70 * MIB + 4096, length: 8192, seed: 99 } as const;
  await actOnSimulated(whole.machine.layout.hostFolder(simulatedHost), simulatedVm.vmId, write);
  const after = await bytesNow();
  expect(after.equals(before)).toBe(false);
  // Beside its worker, which takes the new data key up.
  const repositoryFolder = whole.machine.config.repositories[0]!.folder;
  expect(await dataKeysUsed(repositoryFolder)).toEqual([1]);
  expect(await rotateKeyOf(repository, { state: whole.machine.layout.folder })).toBe(0);
  const second = await backUp(simulated);
  expect(second).toMatchObject({ result: 'Success', vms: [{ disks: [{ mode: 'cbt', readBytes: MIB }] }] });
  expect(await dataKeysUsed(repositoryFolder)).toEqual([1, 2]);

  expect((await restore(first.vms[0]!.restorePointId!, 'first', 'raw')).equals(before)).toBe(true);
  expect((await restore(second.vms[0]!.restorePointId!, 'second', 'raw')).equals(after)).toBe(true);
  await nothingLeft();
});

test('a bitmap that lost bits: the audit finds it, the disk is compared, what rests on tracking is suspect', async () => {
  const folder = whole.machine.layout.hostFolder(simulatedHost);
  const act = (line: GuestLine): Promise<void> => actOnSimulated(folder, simulatedVm.vmId, line);
  // Of 151 blocks 70 change and are forgotten: 64 samples cannot all miss them.
  await act({ kind: 'write', diskKey: key, offset: 10 * MIB, length: 80 * MIB, seed: 3 });
  await act({ kind: 'bits-lost', diskKey: key, offset: 20 * MIB, length: 70 * MIB });
  const now = await bytesNow();
  const third = await backUp(simulated);
  const [vm] = third.vms;
  expect(vm).toMatchObject({ result: 'Warning', disks: [{ mode: 'comparison', audit: { sampled: 64 } }] });
  expect(vm!.disks[0]!.audit!.mismatched).toBeGreaterThan(0);
  const warnings = (await listEvents(whole.db, third.sessionId)).filter(({ level }) => level === 'warning');
  expect(warnings.map(({ code }) => code)).toEqual(['AUDIT_MISMATCH']);
  // Oldest first: the full one does not rest on tracking, and the new one was read whole.
  const points = (await listRestorePoints(whole.db, { jobId: simulated.jobId })).toSorted((a, b) =>
    a.sealedAt < b.sealedAt ? -1 : 1,
  );
  expect(points.map(({ suspect }) => suspect)).toEqual([false, true, false]);
  expect((await restore(vm!.restorePointId!, 'third', 'raw')).equals(now)).toBe(true);
  await nothingLeft();
});

/** What the transfer of a session's disk last told of its audit; null before it has begun. */
async function auditOf(workflowId: string): Promise<NonNullable<TransferHeartbeat['audit']> | null> {
  const picture = await describeWorkflow(whole.client, vmBackupWorkflowId(workflowId, simulatedVm.vmId, 1));
  const transfer = picture?.pending.find(({ type }) => type === 'transferDisk');
  return (transfer?.heartbeat as TransferHeartbeat | undefined)?.audit ?? null;
}

test('a proxy that is killed in the middle of an audit: it is done all the same, from the beginning', async () => {
  // 64 blocks take eight seconds so.
  whole.machine.config.hosts[0]!.limits = { readBytesPerSecond: 8 * MIB, latencyMs: null };
  await whole.apply([simulated, images]);
  const write = { kind: 'write', diskKey: key, offset: 5 * MIB, length: 4096, seed: 5 } as const;
  await actOnSimulated(whole.machine.layout.hostFolder(simulatedHost), simulatedVm.vmId, write);
  const now = await bytesNow();
  const { pid } = whole.child('proxy');
  const running = backUp(simulated);
  await whole.until('the audit goes on', async () => {
    const [newest] = await listSessions(whole.db, { open: true, limit: 1 });
    const audit = newest && (await auditOf(newest.workflowId));
    return audit != null && audit.audited < audit.wanted;
  });
  process.kill(pid!, 'SIGKILL');
  const session = await running;
  expect(whole.child('proxy')).toMatchObject({ restarts: 1, lastExit: 'signal SIGKILL' });
  expect(session).toMatchObject({
    state: 'Stopped',
    result: 'Success',
    vms: [{ disks: [{ mode: 'cbt', audit: { sampled: 64, mismatched: 0 }, readBytes: MIB }] }],
  });
  expect((await restore(session.vms[0]!.restorePointId!, 'audited', 'raw')).equals(now)).toBe(true);
  await nothingLeft();
});

/** What the image holds now, flattened. */
async function flatImage(): Promise<Buffer> {
  const flat = path.join(whole.machine.folders.restores, 'flat');
  execFileSync('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', whole.machine.imageFile, flat]);
  const bytes = await readFile(flat);
  await rm(flat);
  return bytes;
}
async function writeImage(at: number, bytes: Buffer): Promise<void> {
  const source = path.join(whole.machine.folders.restores, 'source');
  await writeFile(source, bytes);
  execFileSync('qemu-io', ['-f', 'qcow2', '-c', `write -s ${source} ${at} ${bytes.length}`, whole.machine.imageFile]);
  await rm(source);
}

test('an image: full, then by comparison, with a warning that nothing could be frozen', async () => {
  await writeImage(3 * MIB, randomBytes(20 * MIB));
  await writeImage(90 * MIB, randomBytes(MIB));
  const before = await flatImage();
  const first = await backUp(images);
  expect(first).toMatchObject({ state: 'Stopped', result: 'Warning', vms: [{ disks: [{ mode: 'full' }] }] });
  const warnings = (await listEvents(whole.db, first.sessionId)).filter(({ level }) => level === 'warning');
  expect(warnings.map(({ message }) => message).join()).toContain('no guest agent');

  await writeImage(5 * MIB, randomBytes(MIB));
  const after = await flatImage();
  const second = await backUp(images);
  const [disk] = second.vms[0]!.disks;
  expect(disk).toMatchObject({
    mode: 'comparison',
    conservation: { sizeBytes: 96 * MIB, unchangedBytes: 95 * MIB, storedBytes: MIB },
  });
  expect(disk!.sentBytes).toBeLessThan(2 * MIB);

  expect((await restore(first.vms[0]!.restorePointId!, 'before', 'qcow2')).equals(before)).toBe(true);
  expect((await restore(second.vms[0]!.restorePointId!, 'after', 'raw')).equals(after)).toBe(true);
  await nothingLeft();
  const daemons = execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' }).split('\n');
  expect(daemons.filter((line) => line.includes('qemu-storage-daemon') && line.includes(whole.machine.root))).toEqual(
    [],
  );
});

/** Files below a folder in which any of these lies, by their names. */
async function filesWith(folder: string, needles: Buffer[]): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath, entry.name);
    const bytes = await readFile(file);
    if (needles.some((needle) => bytes.includes(needle))) found.push(path.relative(folder, file));
  }
  return found;
}

test('no secret lies anywhere but in its file: not in state, histories, catalog or logs, nor a name in the repository', async () => {
  const { layout, folders } = whole.machine;
  const file = await readFile(path.join(folders.repository, 'repository.json'), 'utf8');
  const keys = await unlock(parseRepositoryFile(file, 'repository.json'), {
    kind: 'passphrase',
    passphrase: PASSPHRASE,
  });
  const { master, dataKey1 } = secretsIn(keys) as { master: string; dataKey1: string };
  const secrets = [master, dataKey1].flatMap((key) => [Buffer.from(key), Buffer.from(key, 'hex')]);
  for (const folder of [layout.folder, folders.repository])
    expect(await filesWith(folder, [Buffer.from(PASSPHRASE), ...secrets])).toEqual([]);
  const names = [simulatedVm.vmId, imageVm.vmId, simulated.jobId, `sim-${simulatedDisk.seed}`].map((name) =>
    Buffer.from(name),
  );
  expect(await filesWith(folders.repository, names)).toEqual([]);
  // The search sees what there is to see.
  const known = (await filesWith(layout.folder, names)).join(' ');
  for (const place of ['temporal.sqlite', 'database/', 'config/machine.json']) expect(known).toContain(place);
});
