/** Under which address a repository that listens at all of its machine's is told to others. */
import { networkInterfaces } from 'node:os';
import type { Endpoint } from '../../schema/domain/hypervisor.ts';
import { orderByPreference } from '../../schema/domain/networks.ts';

const everywhere = ['0.0.0.0', '::', ''];

/** Of the machine: those of preferred networks first; none that only the machine itself reaches. */
const addressesOf = (): string[] =>
  Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter(({ internal, address }) => !internal && !address.startsWith('fe80:'))
    .map(({ address }) => address);

/** `at` itself unless it listens everywhere: then the first of the machine's addresses in the order of `preferred`. */
export function advertised<At extends Endpoint>(
  at: At,
  preferred: readonly string[],
  addresses: readonly string[] = addressesOf(),
): At {
  if ('unix' in at || !everywhere.includes(at.host)) return at;
  const [host] = orderByPreference(addresses, preferred, (address) => address);
  return host === undefined ? at : { ...at, host };
}
