/** Under which addresses a repository that listens at all of its machine's is told to others. */
import { isIPv4 } from 'node:net';
import { networkInterfaces } from 'node:os';
import type { ListenedAt } from '../../schema/domain/hypervisor.ts';
import { orderByPreference } from '../../schema/domain/networks.ts';

const everywhere = ['0.0.0.0', '::', ''];

/** Of the machine: those of preferred networks first; none that only the machine itself reaches. */
const addressesOf = (): string[] =>
  Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter(({ internal, address }) => !internal && !address.startsWith('fe80:'))
    .map(({ address }) => address);

/** `at` itself unless it listens everywhere: then all of the machine's addresses, in the order of `preferred`. */
export function advertised(
  at: ListenedAt,
  preferred: readonly string[],
  addresses: readonly string[] = addressesOf(),
): ListenedAt {
  if (!everywhere.includes(at.host)) return at;
  const reached = at.host === '0.0.0.0' ? addresses.filter((address) => isIPv4(address)) : addresses;
  const [host, ...others] = orderByPreference(reached, preferred, (address) => address);
  if (host === undefined) return at;
  return { ...at, host, ...(others.length === 0 ? {} : { others }) };
}
