/** `tidemark restore`: a VM or one disk, to files in a folder of a proxy. */
import { access } from 'node:fs/promises';
import path from 'node:path';
import { didYouMean } from '../../engines/site/nearest-name.ts';
import { normalPath } from '../../engines/site/site-shape.ts';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listResources } from '../../schema/catalog/resources.ts';
import type { ProxyConfig } from '../../schema/domain/configuration.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { type DiskKey, diskKey, proxyId } from '../../schema/domain/ids.ts';
import type { Manifest } from '../../schema/domain/restore-point.ts';
import { withCatalog } from '../catalog-access.ts';
import { exitCodes } from '../exit-codes.ts';
import { followSession, showDetached } from '../follow-session.ts';
import { startRestore } from '../start-session.ts';
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

const isWithin = (folder: string, root: string): boolean => folder === root || folder.startsWith(`${root}/`);

function targetFolder(text: string): string {
  const folder = normalPath(text);
  if (folder !== null) return folder;
  const message = `expected an absolute folder of the proxy without "..", found ${JSON.stringify(text)}`;
  throw new TidemarkError('BAD_REQUEST', message, { into: text });
}

/** NOT_FOUND for a proxy that is not there, TARGET_NOT_ALLOWED when none may write there. */
async function assertAllowed(db: CatalogDatabase, folder: string, proxy: string | undefined): Promise<void> {
  const proxies = (await listResources(db, 'proxy')).filter(({ state }) => state !== 'removed');
  const names = proxies.map(({ id }) => id);
  if (proxy !== undefined && !names.includes(proxy)) {
    const message = `there is no proxy ${proxy}${didYouMean(proxy, names)}`;
    throw new TidemarkError('NOT_FOUND', message, { kind: 'proxy', id: proxy, proxies: names });
  }
  const candidates = proxies.filter(({ id }) => proxy === undefined || id === proxy);
  const allowed = candidates.flatMap(({ config }) => (config as ProxyConfig).restoreFolders);
  if (allowed.some((root) => isWithin(folder, root))) return;
  const who = proxy === undefined ? 'no proxy may' : `proxy ${proxy} may not`;
  const where = allowed.length === 0 ? 'no folder is allowed' : `allowed: ${allowed.join(', ')}`;
  throw new TidemarkError('TARGET_NOT_ALLOWED', `${who} restore into ${folder} (${where})`, { folder, allowed });
}

function chosenDisks(manifest: Manifest, disk: string | null): DiskKey[] {
  const known = manifest.disks.map((each) => each.diskKey);
  if (disk === null) return known;
  const chosen = diskKey(disk);
  if (known.includes(chosen)) return [chosen];
  const message = `restore point ${manifest.restorePointId} has no disk ${disk} (it has ${known.join(', ')})`;
  throw new TidemarkError('NOT_FOUND', `${message}${didYouMean(disk, known)}`, {
    kind: 'disk',
    id: disk,
    disks: known,
  });
}

/** Said before anything is started; the proxy looks again, and its word counts. */
async function refuseExisting(folder: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const file = path.join(folder, name);
    const isThere = await access(file).then(
      () => true,
      () => false,
    );
    if (isThere) throw new TidemarkError('TARGET_EXISTS', `${file} is there already`, { file });
  }
}

/** `disk` null: all of the restore point. */
export function restore(point: string, disk: string | null, options: RestoreOptions): Promise<number> {
  const folder = targetFolder(options.into);
  return withCatalog(options.state, async (db, stack) => {
    const { restorePointId, manifest } = await loadNamed(db, point);
    const disks = chosenDisks(manifest, disk);
    await assertAllowed(db, folder, options.proxy);
    const name = options.name ?? manifest.vm.name;
    await refuseExisting(
      folder,
      disks.map((each) => `${name}-${each}.${options.format}`),
    );
    return withTemporal(stack, async (client) => {
      const started = await startRestore(client, {
        vmName: manifest.vm.name,
        vmId: manifest.vm.vmId,
        restorePointId,
        disks: disk === null ? null : disks,
        format: options.format,
        folder,
        name: options.name ?? null,
        proxyId: options.proxy === undefined ? null : proxyId(options.proxy),
      });
      const target = { ...started, kind: 'restore' as const, name: manifest.vm.name };
      if (!options.detach)
        return followSession(target, { db, client, stack, state: options.state }, options.json === true);
      showDetached(target, stack, options.json === true);
      return exitCodes.ok;
    });
  });
}
