/** What of site.yaml says how machines reach and trust each other. */
import { z } from 'zod';
import { isShortName } from '../../schema/domain/ids.ts';
import { machineRoles } from '../../schema/domain/security.ts';
import { leaf, listOf, oneOf, strict, textWhere } from './shape-leaves.ts';

const MAX_MACHINES = 256;
const hostPattern = /^(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?)$/;

/** "10.0.0.5:7950", "[::1]:7950", "backup-1.example.org:7950". */
export function parseAddress(value: unknown): { host: string; port: number } | null {
  const match = typeof value === 'string' ? /^(.+):(\d{1,5})$/.exec(value) : null;
  const [host, port] = [match?.[1] ?? '', Number(match?.[2])];
  if (!hostPattern.test(host) || port < 1 || port > 65_535) return null;
  return { host: host.replaceAll(/[[\]]/g, ''), port };
}

export const address = leaf('an address with its port, like 10.0.0.5:7950', parseAddress);
const addressText = textWhere(
  'an address with its port, like temporal.example.org:7233',
  (text) => parseAddress(text) !== null,
);
const name = textWhere('a name: 1 to 32 of a-z, 0-9 and "-", no "-" at its ends', isShortName);

/** `file`: the leaf of an absolute path. */
export function securityShapes<F extends z.ZodType<string>>(file: F) {
  const machine = strict('a mapping with name, machine and roles', {
    name: textWhere('a DNS name or URI that stands in the certificate of the machine', (text) =>
      /^[!-~]{1,512}$/.test(text),
    ),
    machine: name,
    roles: listOf('roles', oneOf(machineRoles), machineRoles.length).min(1, { error: 'at least one role' }),
  });
  const security = strict('a mapping with authority, certificate, key, revocations and machines', {
    authority: file,
    certificate: file,
    key: file,
    revocations: file.optional(),
    machines: listOf('machines', machine, MAX_MACHINES).min(1, { error: 'at least one machine' }),
  });
  const tls = z.union(
    [
      z.literal(true),
      strict('a mapping', {
        authority: file.optional(),
        certificate: file.optional(),
        key: file.optional(),
        serverName: textWhere('a host name', (text) => hostPattern.test(text)).optional(),
      }),
    ],
    { error: 'true, or a mapping with authority, certificate, key and serverName' },
  );
  const temporal = strict('a mapping with address and tls', {
    address: addressText,
    namespace: name.optional(),
    tls: tls.optional(),
  });
  const enrolment = strict('a mapping with listen', { listen: address });
  return { security: security.optional(), temporal: temporal.optional(), enrolment: enrolment.optional() };
}
