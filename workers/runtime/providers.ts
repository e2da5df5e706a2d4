/** Which hypervisor provider a host's configuration means. */
import { readFile } from 'node:fs/promises';
import type { KeeperClient } from '../../engines/guest/keeper/client.ts';
import { createImageProvider } from '../../engines/hypervisors/image/provider.ts';
import type { HypervisorProvider } from '../../engines/hypervisors/provider.ts';
import { createQemuProvider } from '../../engines/hypervisors/qemu/provider.ts';
import type { QmpAction } from '../../engines/hypervisors/qemu/qmp-shapes.ts';
import { createSimulatedProvider } from '../../engines/hypervisors/simulated/provider.ts';
import type { HostConfig } from '../../schema/domain/configuration.ts';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { SiteId, VmId } from '../../schema/domain/ids.ts';
import type { Monitor, Seams } from '../../schema/domain/seams.ts';

export type ProviderParts = {
  site: SiteId;
  /** The host's own. */
  stateFolder: string;
  keeper: KeeperClient;
  seams: Seams;
};

/** Of a host whose provider cannot be made, every verb fails with the reason; the other hosts go on. */
export function createProvider(host: HostConfig, parts: ProviderParts): HypervisorProvider {
  try {
    return providerOf(host, parts);
  } catch (error) {
    parts.seams.log.error('a host has no provider', { host: host.hostId, cause: messageOf(error) });
    return failingProvider(error);
  }
}

/** BAD_CONFIG: of a kind that this version does not know. */
function providerOf(host: HostConfig, { site, stateFolder, keeper, seams }: ProviderParts): HypervisorProvider {
  switch (host.provider) {
    case 'image':
      return createImageProvider({ host, site, stateFolder, seams });
    case 'simulated':
      return createSimulatedProvider({ host, site, stateFolder, seams });
    case 'qemu': {
      const monitorOf = (vm: VmId): Monitor => keeper.monitor(vm);
      return createQemuProvider({ host, site, stateFolder, monitorOf, seams, ...testTransaction() });
    }
    default: {
      const { hostId, provider } = host as HostConfig;
      throw new TidemarkError('BAD_CONFIG', `host ${hostId} has the provider ${provider}, unknown to this version`, {
        hostId,
        provider,
      });
    }
  }
}

function failingProvider(why: unknown): HypervisorProvider {
  const verbOf = (name: string | symbol): unknown =>
    name === 'close'
      ? () => Promise.resolve()
      : () => {
          throw why;
        };
  return new Proxy({} as HypervisorProvider, { get: (_none, name) => verbOf(name) });
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
