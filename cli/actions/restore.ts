/** `tidemark restore`: a VM or one disk, to files in a folder of a proxy. */
import { access } from 'node:fs/promises';
import path from 'node:path';
import { planRestore } from '../../activities/session/plan-restore.ts';
import { listResources, type ResourceRow } from '../../schema/catalog/resources.ts';
import type { ProxyConfig } from '../../schema/domain/configuration.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { diskKey, proxyId } from '../../schema/domain/ids.ts';
import type { RestoreSessionInput, StartedRestore } from '../../schema/domain/sessions.ts';
import { loadMachine } from '../../workers/runtime/config.ts';
import { withCatalog } from '../catalog-access.ts';
import { exitCodes } from '../exit-codes.ts';
import { requireRepository } from '../find-names.ts';
import { followSession, showDetached } from '../follow-session.ts';
import { layoutOf } from '../stack-access.ts';
import { newSessionId, startRestore } from '../start-session.ts';
import { withTemporal } from '../temporal-access.ts';
import type { ReadOptions } from './job.ts';
import { loadNamed } from './restore-point.ts';

export type RestoreOptions = ReadOptions & {
  into: string;
  format: 'raw' | 'qcow2';
  name?: string;
  proxy?: string;
  detach?: boolean;
};

/** Whether whatever proxy is taken writes to the file systems that this command sees. */
async function isWrittenHere(state: string | undefined, plan: StartedRestore, proxies: readonly ResourceRow[]) {
  const here = (await loadMachine(layoutOf(state)))?.machineId;
  const taken = proxies.filter(({ id }) => plan.proxies.some((allowed) => allowed === id));
  return taken.every(({ machineId }) => machineId === here);
}

/** Said before anything is started; the proxy looks again, and its word counts. */
async function refuseExisting(files: readonly string[]): Promise<void> {
  for (const file of files) {
    const isThere = await access(file).then(
      () => true,
      () => false,
    );
    if (isThere) throw new TidemarkError('TARGET_EXISTS', `${file} is there already`, { file });
  }
}

/**
 * `disk` null: all of the restore point. RESTORE_POINT_NOT_FOUND, RESOURCE_REMOVED, NOT_FOUND (disk, proxy), BAD_REQUEST (folder, name),
 * TARGET_NOT_ALLOWED, TARGET_EXISTS before anything is started.
 */
export function restore(point: string, disk: string | null, options: RestoreOptions): Promise<number> {
  return withCatalog(options.state, async (db, stack) => {
    const { restorePointId, manifest } = await loadNamed(db, point);
    await requireRepository(db, manifest.repository);
    const input: RestoreSessionInput = {
      version: 1,
      sessionId: newSessionId(),
      restorePointId,
      disks: disk === null ? null : [diskKey(disk)],
      format: options.format,
      folder: options.into,
      name: options.name ?? null,
      proxyId: options.proxy === undefined ? null : proxyId(options.proxy),
    };
    const proxies = (await listResources(db, 'proxy')).filter(({ state }) => state !== 'removed');
    const plan = planRestore(
      input,
      manifest,
      proxies.map(({ config }) => config as ProxyConfig),
    );
    if (await isWrittenHere(options.state, plan, proxies))
      await refuseExisting(plan.disks.map(({ fileName }) => path.join(input.folder, fileName)));
    return withTemporal(stack, async (client) => {
      const started = await startRestore(client, input, plan);
      const target = { ...started, kind: 'restore' as const, name: plan.vmName };
      if (!options.detach)
        return followSession(target, { db, client, stack, state: options.state }, options.json === true);
      showDetached(target, stack, options.json === true);
      return exitCodes.ok;
    });
  });
}
