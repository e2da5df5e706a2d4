/** What is worth a warning about machines other than that of the stack. Pure. */
import { parseAddress } from '../engines/site/security-shape.ts';
import type { SiteConfig } from '../schema/domain/configuration.ts';

const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || host.startsWith('127.');

export function checkOtherMachines({ machines }: SiteConfig): string[] {
  return machines.slice(1).flatMap(({ machineId, temporal }) => {
    if (temporal === undefined) return [`machine ${machineId} is not told where Temporal is: \`temporal\` is missing`];
    const isPlain = temporal.tls === undefined && !isLoopback(parseAddress(temporal.address)?.host ?? '');
    return isPlain
      ? [`machine ${machineId} reaches Temporal at ${temporal.address} without TLS, and without proving who it is`]
      : [];
  });
}
