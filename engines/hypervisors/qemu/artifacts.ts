/** What of this site is on the platform: from the host's ledger and, should that be lost, from names. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { QemuVmConfig } from '../../../schema/domain/configuration.ts';
import { errorCodeOf, messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { Artifact, VmRef } from '../../../schema/domain/hypervisor.ts';
import { parseArtifactName } from '../../../schema/domain/ids.ts';
import { type Context, refOf } from './context.ts';
import { queryExports } from './exports.ts';
import { lookAtVms } from './look-at-vms.ts';
import { type QmpJob, queryNodes } from './qmp-shapes.ts';
import { discardRun, findBitmaps, forget } from './reference-points.ts';
import { scratchUse } from './scratch.ts';
import { endTemporaries } from './temporaries.ts';

type Found = { config: QemuVmConfig; names: string[] };

export async function* listOurs(context: Context): AsyncGenerator<Artifact> {
  const seen = new Set<string>();
  for (const { artifact } of (await context.ledger()).list()) {
    seen.add(artifact.platformName);
    yield artifact;
  }
  const look = async (config: QemuVmConfig): Promise<Found> => ({ config, names: await namesOn(context, config) });
  for (const { config, names } of await lookAtVms(context, look, (config, error) => unseen(context, config, error)))
    for (const name of names) {
      const artifact = seen.has(name) ? null : named(context, name, refOf(context, config));
      seen.add(name);
      if (artifact) yield artifact;
    }
  // Files do not say of which VM they are; they are removed without asking one.
  const [first] = context.host.vms;
  for (const name of first ? await namesOfFiles(context) : []) {
    const artifact = seen.has(name) ? null : named(context, name, refOf(context, first!));
    seen.add(name);
    if (artifact) yield artifact;
  }
}

function named({ site }: Context, name: string, vm: VmRef): Artifact | null {
  const parsed = parseArtifactName(name);
  if (parsed?.site !== site) return null;
  const kind = parsed.kind === 'bm' ? 'reference-point' : 'temporary';
  return { kind, site, run: parsed.run, vm, what: `${name} of VM ${vm.vmId}`, platformName: name };
}

/** A VM that cannot be asked has nothing to show now; it will be asked again. */
function unseen({ seams }: Context, config: QemuVmConfig, error: unknown): Found {
  seams.log.warn('a VM cannot be searched for what is ours', { vm: config.vmId, cause: messageOf(error) });
  return { config, names: [] };
}

async function namesOn(context: Context, config: QemuVmConfig): Promise<string[]> {
  const { bitmaps } = await findBitmaps(context, config.vmId, []);
  return [...bitmaps.map(({ name }) => name), ...(await namesInVm(context, config))];
}

async function namesInVm(context: Context, { vmId }: QemuVmConfig): Promise<string[]> {
  const monitor = context.monitorOf(vmId);
  try {
    const nodes = (await queryNodes(monitor)).map((node) => node['node-name']);
    const jobs = (await monitor.execute<QmpJob[]>('query-jobs')).map(({ id }) => id);
    const exports = (await queryExports(monitor)).map(({ id }) => id);
    return [...exports, ...jobs, ...nodes.filter((name) => parseArtifactName(name)?.kind === 'flc')];
  } catch (error) {
    if (errorCodeOf(error) === 'VM_OFF') return [];
    throw error;
  }
}

async function namesOfFiles({ host, site, stateFolder }: Context): Promise<string[]> {
  const scratch = (await scratchUse(host.scratch, site)).map(({ name }) => name);
  const folders = await readdir(join(stateFolder, 'runs')).catch(() => []);
  return [...scratch, ...folders.filter((name) => parseArtifactName(name)?.kind === 'qsd')];
}

/** NOT_OURS: of another site, or not named as its run says. Already gone is success. */
export async function removeOurs(context: Context, artifact: Artifact): Promise<void> {
  const { site, run, vm, kind, platformName } = artifact;
  const name = parseArtifactName(platformName);
  if (site !== context.site || name?.site !== context.site || name.run !== run)
    throw new TidemarkError('NOT_OURS', `${artifact.what} is not of site ${context.site}`, { ...artifact });
  // Of a file that is damaged nothing can be told: what is there is a stray.
  const state = await context.states.load(run).catch((error: unknown) => {
    if (errorCodeOf(error) !== 'STORAGE_ERROR') throw error;
    return null;
  });
  if (kind === 'reference-point') return await (state ? discardRun(context, state) : dropStray(context, artifact));
  if (state && state.phase !== 'released') {
    const lost = { code: 'STOPPED', message: 'it was removed as a leftover' };
    await context.states.save({ ...state, phase: 'lost', lost });
  }
  await endTemporaries(context, state ?? { run, vm, heldBy: null });
  if (state?.disks.every(({ bitmap }) => bitmap === null)) await forget(context, state);
}

/** A bitmap of which this host's state knows nothing: nothing stands on it here. */
async function dropStray(context: Context, { run, vm, platformName }: Artifact): Promise<void> {
  const { bitmaps, change } = await findBitmaps(context, vm.vmId, []);
  const found = bitmaps.filter(({ name, readOnly }) => name === platformName && !readOnly);
  await change(found.map(({ node, name }) => ({ kind: 'drop', node, name })));
  const ledger = await context.ledger();
  const entries = ledger.list().filter((entry) => entry.artifact.platformName === platformName);
  await ledger.remove(entries.map((entry) => entry.artifact));
  await context.states.remove(run);
}
