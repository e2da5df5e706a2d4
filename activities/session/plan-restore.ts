/** From what was asked to what is restored, where, and under which file names. Pure. */
import path from 'node:path';
import type { ProxyConfig } from '../../schema/domain/configuration.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { vmId, type DiskKey } from '../../schema/domain/ids.ts';
import type { Manifest } from '../../schema/domain/restore-point.ts';
import type { RestoreSessionInput, StartedRestore } from '../../schema/domain/sessions.ts';

/**
 * `proxies`: those of the site. BAD_REQUEST (folder, name), NOT_FOUND (disk, proxy), TARGET_NOT_ALLOWED (no proxy's
 * configuration has the folder; the proxy itself looks again, through links).
 */
export function planRestore(
  input: RestoreSessionInput,
  manifest: Manifest,
  proxies: readonly ProxyConfig[],
): StartedRestore {
  if (!path.isAbsolute(input.folder))
    throw new TidemarkError('BAD_REQUEST', `restore folder ${input.folder} is not an absolute path`);
  const { name } = input;
  if (name !== null && fileNameOf(name) !== name)
    throw new TidemarkError('BAD_REQUEST', `${JSON.stringify(name)} is not a file name of letters, digits, . _ and -`);
  return {
    vmId: vmId(manifest.vm.vmId),
    vmName: manifest.vm.name,
    repositoryId: manifest.repository,
    proxies: allowing(input, proxies),
    disks: named(disksOf(input, manifest), name ?? fileNameOf(manifest.vm.name), input.format),
  };
}

function disksOf({ disks, restorePointId }: RestoreSessionInput, manifest: Manifest): Manifest['disks'] {
  if (disks === null) return manifest.disks;
  return [...new Set(disks)].map((diskKey) => {
    const disk = manifest.disks.find((each) => each.diskKey === diskKey);
    if (disk) return disk;
    const has = manifest.disks.map((each) => each.diskKey).join(', ');
    throw new TidemarkError('NOT_FOUND', `restore point ${restorePointId} has no disk ${diskKey}; it has ${has}`);
  });
}

function allowing(input: RestoreSessionInput, proxies: readonly ProxyConfig[]): StartedRestore['proxies'] {
  const { folder, proxyId } = input;
  const named = proxyId === null ? proxies : proxies.filter((each) => each.proxyId === proxyId);
  if (proxyId !== null && named.length === 0)
    throw new TidemarkError('NOT_FOUND', `there is no proxy ${proxyId} in the site`, { proxyId });
  const allowed = named.filter(({ restoreFolders }) => restoreFolders.some((root) => isWithin(folder, root)));
  if (allowed.length > 0) return allowed.map((each) => each.proxyId);
  const roots = [...new Set(named.flatMap(({ restoreFolders }) => restoreFolders))];
  const whose = proxyId === null ? 'no proxy allows' : `proxy ${proxyId} does not allow`;
  const message = `${whose} restores into ${folder} (allowed: ${roots.join(', ') || 'none'})`;
  throw new TidemarkError('TARGET_NOT_ALLOWED', message, { folder });
}

function isWithin(folder: string, root: string): boolean {
  const relative = path.relative(path.resolve(root), path.resolve(folder));
  return relative === '' || (!relative.startsWith(`..${path.sep}`) && relative !== '..' && !path.isAbsolute(relative));
}

/** Names of VMs and disks may hold anything; file names do not. */
const fileNameOf = (text: string): string =>
  text
    .slice(0, 100)
    .replaceAll(/[^A-Za-z0-9._-]/g, '-')
    .replace(/^\./, '-') || '-';

function named(disks: Manifest['disks'], name: string, format: string): StartedRestore['disks'] {
  const taken = new Set<string>();
  const nameOf = (diskKey: DiskKey, again: number): string => {
    const file = `${name}-${fileNameOf(diskKey)}${again === 0 ? '' : `-${again}`}.${format}`;
    return taken.has(file) ? nameOf(diskKey, again + 1) : file;
  };
  return disks.map(({ diskKey, sizeBytes }) => {
    const fileName = nameOf(diskKey, 0);
    taken.add(fileName);
    return { diskKey, sizeBytes, fileName };
  });
}
