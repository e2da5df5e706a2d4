/** Two machines of a site on one computer: the stack with host and repository, and a proxy that has enrolled. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Client } from '@temporalio/client';
import { readSimulated } from '../../engines/hypervisors/simulated/model.ts';
import { findFreePort } from '../../engines/stack/ports.ts';
import { stackLayout } from '../../engines/stack/layout.ts';
import { describeWorkflow } from '../../cli/temporal-access.ts';
import { listResources } from '../../schema/catalog/resources.ts';
import { listSessions } from '../../schema/catalog/sessions.ts';
import { jobId, vmId } from '../../schema/domain/ids.ts';
import { type TransferHeartbeat, vmBackupWorkflowId } from '../../schema/domain/sessions.ts';
import { createPayloadCodec, parsePayloadKeys } from '../../workers/runtime/payload-codec.ts';
import { locateTool, rootFolder } from '../../setup/locate.mjs';
import { simulatedDisk, simulatedHost, simulatedJob, simulatedVm } from '../fixtures/machine.ts';
import { startTlsFront, type TlsFront } from '../fixtures/tls-front.ts';
import { sessionsOf } from '../fixtures/whole-sessions.ts';
import { startWholeStack, type WholeStack } from '../fixtures/whole-stack.ts';

const KEYS = [`old ${'1a'.repeat(32)}`, `new ${'2b'.repeat(32)}`] as const;
let whole: WholeStack;
let front: TlsFront;
let machine: ChildProcess | null = null;
let state: string;
let siteFile: string;
let text: string;

/** With `folder` as its state folder. */
async function tidemark(folder: string, args: string[], environment: Record<string, string> = {}) {
  const env = { ...process.env, TIDEMARK_STATE: folder, ...environment };
  const entry = path.join(rootFolder, 'cli/tidemark.ts');
  const { stdout } = await promisify(execFile)(process.execPath, [entry, ...args, '--json'], { env });
  return JSON.parse(stdout) as Record<string, unknown>;
}

/** Search attributes, and the markers in which Temporal's library keeps names of versions of workflow code. */
const inTheClear = new Set(['searchAttributes', 'markerRecordedEventAttributes']);
/** Encodings of all other payloads of a history, and whether `marker` stands anywhere in it. */
function lookInto(history: unknown, marker: string): { encodings: Set<string>; hasMarker: boolean } {
  const found = { encodings: new Set<string>(), hasMarker: false };
  const look = (value: unknown, name: string): void => {
    if (typeof value === 'string') found.hasMarker ||= value.includes(marker);
    if (value instanceof Uint8Array) found.hasMarker ||= Buffer.from(value).includes(marker);
    if (value === null || typeof value !== 'object' || value instanceof Uint8Array || inTheClear.has(name)) return;
    const { metadata } = value as { metadata?: { encoding?: Uint8Array } };
    if (metadata?.encoding) found.encodings.add(Buffer.from(metadata.encoding).toString());
    for (const [key, inner] of Object.entries(value)) look(inner, key);
  };
  look(history, '');
  return found;
}

/** So slow that a disk would take most of an hour; both ends are on this computer. */
const slowRule = `
networks:
  throttle: [{ name: slow, from: 127.0.0.0/8, to: 127.0.0.0/8, rate: 64KiB/s }]
`;

/** A VM and a job of their own for the second test: they have nothing to build on. */
const other = {
  vmId: vmId('0b0b0b0b-0000-4000-8000-000000000001'),
  jobId: jobId('other'),
  disk: { ...simulatedDisk, seed: 11 },
};

const siteText = (repositoryPort: number): string => `
site: lab
machine: m1
temporal: { address: "localhost:${front.port}", tls: { authority: ${front.authorityFile} } }
hosts:
  - name: ${simulatedHost}
    provider: simulated
    vms:
      - { name: web, disks: [{ name: d0, size: ${simulatedDisk.sizeBytes}, seed: ${simulatedDisk.seed} }] }
      - { name: db, uuid: ${other.vmId}, disks: [{ name: d0, size: ${other.disk.sizeBytes}, seed: ${other.disk.seed} }] }
proxies:
  - { name: far, machine: m2, restoreFolders: [${whole.machine.folders.restores}] }
repositories:
  - { name: main, folder: ${whole.machine.folders.repository}, listen: "127.0.0.1:${repositoryPort}", maintenance: false }
jobs:
  - { name: ${simulatedJob.jobId}, vms: [web], repository: main, consistency: none }
  - { name: ${other.jobId}, vms: [db], repository: main, consistency: none }
`;

beforeAll(async () => {
  whole = await startWholeStack(({ layout }) =>
    writeFile(layout.payloadKeysFile, `${KEYS[0]}\n${KEYS[1]}\n`, { mode: 0o600 }),
  );
  state = path.join(whole.machine.root, 'm2');
  const far = stackLayout(state);
  await mkdir(far.configFolder, { recursive: true, mode: 0o700 });
  // As in the middle of a rotation: each end encrypts with another key, and knows both.
  await writeFile(far.payloadKeysFile, `${KEYS[1]}\n${KEYS[0]}\n`, { mode: 0o600 });
  const { connection, options } = whole.client;
  const dataConverter = { payloadCodecs: [createPayloadCodec(parsePayloadKeys(KEYS.join('\n'), 'test'))] };
  whole.client = new Client({ connection, namespace: options.namespace, dataConverter });
});
afterAll(async () => {
  if (machine && machine.exitCode === null) {
    machine.kill('SIGTERM');
    await once(machine, 'exit');
  }
  await front?.close();
  await whole?.close();
});

async function untilHeldBackBy(what: string, vm = simulatedVm.vmId): Promise<void> {
  await whole.until(`a transfer is held back by ${what}`, async () => {
    const [session] = await listSessions(whole.db, { open: true, limit: 1 });
    if (!session) return false;
    const picture = await describeWorkflow(whole.client, vmBackupWorkflowId(session.workflowId, vm, 1));
    return (picture?.pending ?? []).some(({ heartbeat }) => (heartbeat as TransferHeartbeat)?.waitsFor === what);
  });
}

/** By its CLI through the codec of the stack, whose address its UI has been given as well. */
async function expectReadByTemporalsTools(workflowId: string): Promise<void> {
  const { address, namespace, codecUrl, uiUrl } = whole.stack.connections.temporal;
  const show = async (...more: string[]): Promise<string> => {
    const where = ['--address', address, '--namespace', namespace, '--workflow-id', workflowId, '--output', 'json'];
    const { stdout } = await promisify(execFile)(locateTool('temporal')!, ['workflow', 'show', ...where, ...more], {
      maxBuffer: 64 * 1024 * 1024,
    });
    const payloads = [...stdout.matchAll(/"data": "([^"]*)"/g)];
    return payloads.map(([, data]) => Buffer.from(data!, 'base64').toString()).join('\n');
  };
  expect(await show()).not.toContain('"jobId"');
  expect(await show('--codec-endpoint', codecUrl!)).toContain('"jobId"');
  const settings = (await (await fetch(new URL('/api/v1/settings', uiUrl))).json()) as { Codec: { Endpoint: string } };
  expect(settings.Codec.Endpoint).toBe(codecUrl);
}

const { backUp, restore } = sessionsOf(() => whole);
const own = (args: string[]) => tidemark(whole.machine.layout.folder, args);

test('a machine joins with a token, reads and restores a disk over TLS, and reaches Temporal through a front with its certificate', async () => {
  const { enrolmentFile } = whole.machine.layout;
  const { fingerprint } = await own(['site', 'init', '--site', 'lab', '--machine', 'm1']);
  const authority = path.join(whole.machine.layout.folder, 'config/security/authority.pem');
  front = await startTlsFront(whole.machine.root, authority, whole.stack.connections.temporal.address);
  siteFile = path.join(whole.machine.root, 'site.yaml');
  text = siteText((await findFreePort())!);
  await writeFile(siteFile, text + slowRule);
  expect(await own(['apply', '-f', siteFile])).toMatchObject({ applied: true });
  await whole.until('machines may enrol', () =>
    stat(enrolmentFile).then(
      () => true,
      () => false,
    ),
  );
  const { token, url } = await own(['machine', 'token', 'm2', '--roles', 'proxy']);
  const enroll = ['host', 'enroll', '--site', url as string, '--ca-fingerprint', fingerprint as string];
  expect(await tidemark(state, enroll, { TIDEMARK_ENROLL_TOKEN: token as string })).toMatchObject({
    machineId: 'm2',
    site: 'lab',
    isConfigured: true,
  });
  await expect(tidemark(state, enroll, { TIDEMARK_ENROLL_TOKEN: token as string })).rejects.toMatchObject({
    stdout: expect.stringContaining('was used already') as string,
  });
  const env = { ...process.env, TIDEMARK_STATE: state };
  machine = spawn(process.execPath, [path.join(rootFolder, 'cli/tidemark.ts'), 'host', 'run'], {
    env,
    stdio: 'ignore',
  });
  const proxyLog = (): Promise<string> => readFile(path.join(state, 'logs/proxy.log'), 'utf8').catch(() => '');
  await whole
    .until('the proxy serves its queues', async () => (await proxyLog()).includes('proxy.far'))
    .catch(async (error: unknown) => {
      throw new Error(`its log: ${(await proxyLog()).slice(-3000)}`, { cause: error });
    });

  const running = backUp(simulatedJob);
  await untilHeldBackBy('throttling (rule slow)');
  // It ends because the rule is gone, and only so.
  await writeFile(siteFile, text);
  expect(await own(['apply', '-f', siteFile])).toMatchObject({ changes: [{ kind: 'machine' }, { kind: 'machine' }] });
  const session = await running;
  expect(session).toMatchObject({
    result: 'Success',
    error: null,
    vms: [{ disks: [{ proxyId: 'far', mode: 'full' }] }],
  });
  const bytes = await readSimulated(whole.machine.layout.hostFolder(simulatedHost), simulatedDisk, simulatedVm.vmId);
  expect((await restore(session.vms[0]!.restorePointId!, 'again', 'raw')).equals(bytes)).toBe(true);
  for await (const execution of whole.client.workflow.list()) {
    const history = await whole.client.workflow.getHandle(execution.workflowId, execution.runId).fetchHistory();
    const { encodings, hasMarker } = lookInto(history, whole.machine.root);
    expect([execution.type, [...encodings], hasMarker]).toEqual([execution.type, ['binary/encrypted'], false]);
  }
  await expectReadByTemporalsTools(session.workflowId);
  // Only the second machine goes through the front.
  expect(front.count.passed).toBeGreaterThan(0);
  const { certificates } = (await own(['machine', 'list'])) as { certificates: { machineId: string }[] };
  expect(certificates.map(({ machineId }) => machineId)).toEqual(['m1', 'm2']);
});

/** All its processes at once, as when its power goes. */
async function killMachine({ pid }: ChildProcess): Promise<void> {
  const children = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ').map(Number);
  for (const each of [pid!, ...children]) process.kill(each, 'SIGKILL');
}

test('a disk whose proxy dies with its machine goes on with the proxy of another', async () => {
  const near = text.replace(
    'proxies:\n',
    `proxies:\n  - { name: near, machine: m1, restoreFolders: [${whole.machine.folders.restores}] }\n`,
  );
  await writeFile(siteFile, text + slowRule);
  await own(['apply', '-f', siteFile]);
  const running = backUp({ ...simulatedJob, jobId: other.jobId });
  await untilHeldBackBy('throttling (rule slow)', other.vmId);
  await writeFile(siteFile, near + slowRule);
  await own(['apply', '-f', siteFile]);
  await whole.until('the other proxy answers', async () =>
    (await listResources(whole.db, 'proxy')).some(({ id, reachable }) => id === 'near' && reachable),
  );
  await killMachine(machine!);
  machine = null;
  await writeFile(siteFile, near);
  await own(['apply', '-f', siteFile]);
  const session = await running;
  expect(session).toMatchObject({ result: 'Success', vms: [{ disks: [{ proxyId: 'near', mode: 'full' }] }] });
  const bytes = await readSimulated(whole.machine.layout.hostFolder(simulatedHost), other.disk, other.vmId);
  expect((await restore(session.vms[0]!.restorePointId!, 'other', 'raw')).equals(bytes)).toBe(true);
});
