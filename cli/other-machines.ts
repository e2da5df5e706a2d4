/** What is worth a warning about sites of several machines. Pure. */
import { parseAddress } from '../engines/site/security-shape.ts';
import { type JobConfig, readsOffHost, type SiteConfig } from '../schema/domain/configuration.ts';

const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || host.startsWith('127.');

export function checkOtherMachines(site: SiteConfig): string[] {
  return [...checkTheWayToTemporal(site), ...site.jobs.flatMap((job) => checkReaders(site, job))];
}

/** Hosts of the job that none of its proxies can read: their VMs would fail in each session. */
function checkReaders({ machines }: SiteConfig, { jobId, proxies, vms }: JobConfig): string[] {
  const [hosts, named] = [new Set(vms.map(({ hostId }) => hostId)), new Set(proxies)];
  return machines
    .filter((machine) => !machine.proxies.some(({ proxyId }) => named.size === 0 || named.has(proxyId)))
    .flatMap(({ machineId, hosts: there }) =>
      there
        .filter(({ hostId, provider }) => hosts.has(hostId) && !readsOffHost[provider])
        .map(
          ({ hostId, provider }) =>
            `job ${jobId}: no proxy of it is on machine ${machineId}, and none of another machine can read host ` +
            `${hostId} (${provider}): its VMs cannot be backed up`,
        ),
    );
}

function checkTheWayToTemporal({ machines }: SiteConfig): string[] {
  return machines.slice(1).flatMap(({ machineId, temporal }) => {
    if (temporal === undefined) return [`machine ${machineId} is not told where Temporal is: \`temporal\` is missing`];
    const isPlain = temporal.tls === undefined && !isLoopback(parseAddress(temporal.address)?.host ?? '');
    return isPlain
      ? [`machine ${machineId} reaches Temporal at ${temporal.address} without TLS, and without proving who it is`]
      : [];
  });
}
