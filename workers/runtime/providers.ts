/** Which hypervisor provider a host's configuration means. */
import type { KeeperClient } from '../../engines/guest/keeper/client.ts';
import { createImageProvider } from '../../engines/hypervisors/image/provider.ts';
import type { HypervisorProvider } from '../../engines/hypervisors/provider.ts';
import { createSimulatedProvider } from '../../engines/hypervisors/simulated/provider.ts';
import type { HostConfig } from '../../schema/domain/configuration.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { SiteId } from '../../schema/domain/ids.ts';
import type { Seams } from '../../schema/domain/seams.ts';

export type ProviderParts = {
  site: SiteId;
  /** The host's own. */
  stateFolder: string;
  keeper: KeeperClient;
  seams: Seams;
};

export function createProvider(host: HostConfig, { site, stateFolder, seams }: ProviderParts): HypervisorProvider {
  switch (host.provider) {
    case 'image':
      return createImageProvider({ host, site, stateFolder, seams });
    case 'simulated':
      return createSimulatedProvider({ host, site, stateFolder, seams });
    case 'qemu':
  }
  throw new TidemarkError('BAD_CONFIG', `host ${host.hostId}: the qemu provider is not in this version`);
}
