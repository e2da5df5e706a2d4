/** Which hypervisor provider a host's configuration means. */
import { readFile } from 'node:fs/promises';
import type { KeeperClient } from '../../engines/guest/keeper/client.ts';
import { createImageProvider } from '../../engines/hypervisors/image/provider.ts';
import type { HypervisorProvider } from '../../engines/hypervisors/provider.ts';
import { createQemuProvider } from '../../engines/hypervisors/qemu/provider.ts';
import type { QmpAction } from '../../engines/hypervisors/qemu/qmp-shapes.ts';
import { createSimulatedProvider } from '../../engines/hypervisors/simulated/provider.ts';
import type { HostConfig } from '../../schema/domain/configuration.ts';
import type { SiteId, VmId } from '../../schema/domain/ids.ts';
import type { Monitor, Seams } from '../../schema/domain/seams.ts';

export type ProviderParts = {
  site: SiteId;
  /** The host's own. */
  stateFolder: string;
  keeper: KeeperClient;
  seams: Seams;
};

export function createProvider(host: HostConfig, parts: ProviderParts): HypervisorProvider {
  const { site, stateFolder, keeper, seams } = parts;
  if (host.provider === 'image') return createImageProvider({ host, site, stateFolder, seams });
  if (host.provider === 'simulated') return createSimulatedProvider({ host, site, stateFolder, seams });
  const monitorOf = (vm: VmId): Monitor => keeper.monitor(vm);
  return createQemuProvider({ host, site, stateFolder, monitorOf, seams, ...testTransaction() });
}

/**
 * Tests take copies of their own in the transaction of each checkpoint: TIDEMARK_TEST_TRANSACTION names a JSON file with
 * the actions, read anew each time; while it is not there, there are none.
 */
function testTransaction(): { extraActions?: () => Promise<QmpAction[]> } {
  const file = process.env['TIDEMARK_TEST_TRANSACTION'];
  if (!file) return {};
  const extraActions = async (): Promise<QmpAction[]> => {
    const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return '[]';
      throw error;
    });
    return JSON.parse(text) as QmpAction[];
  };
  return { extraActions };
}
