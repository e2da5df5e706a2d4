/** Who machines are to each other: what a certificate says, and where it lies. Plain data, so that threads can have it. */
import { isShortName, isSiteId, machineId, siteId, type MachineId, type SiteId } from './ids.ts';

/** What a machine may be asked to do, and so what its certificate lets it do. */
export const machineRoles = ['control', 'host', 'proxy', 'repository'] as const;
export type MachineRole = (typeof machineRoles)[number];
export const isMachineRole = (text: string): text is MachineRole => (machineRoles as readonly string[]).includes(text);

export type MachineIdentity = { site: SiteId; machineId: MachineId; roles: MachineRole[] };
/** The other end of a connection, as its certificate proves it. `serial`: hex, of that certificate. */
export type Peer = MachineIdentity & { serial: string };

/** Absolute paths of a machine's PEM files. */
export type SecurityFiles = { authority: string; certificate: string; key: string; revocations: string };

/**
 * A site's own PKI has certificates that know nothing of Tidemark: then a DNS name or URI among a certificate's subject
 * alternative names says which machine it is of, and what that machine may do.
 */
export type NamedMachine = { name: string; machineId: MachineId; roles: MachineRole[] };
export type OwnPki = {
  authority: string;
  certificate: string;
  key: string;
  revocations?: string;
  machines: NamedMachine[];
};

/**
 * All that an end of a connection needs. `machines` null: certificates of the site's own authority, whose list need not be
 * there yet. `revocations` null: the operator's PKI has no list; one that it has must be there.
 */
export type SecurityDescription = {
  site: SiteId;
  files: Omit<SecurityFiles, 'revocations'> & { revocations: string | null };
  machines: NamedMachine[] | null;
};

const scheme = 'tidemark://site/';

/** The names in a certificate of the site's own authority. */
export const namesOf = ({ site, machineId: machine, roles }: MachineIdentity): string[] => [
  `${scheme}${site}/machine/${machine}`,
  ...roles.map((role) => `${scheme}${site}/role/${role}`),
];

/** Null unless they name exactly one machine of one site. Names of other schemes do not count. */
export function identityIn(names: readonly string[]): MachineIdentity | null {
  const ours = names.filter((name) => name.startsWith(scheme)).map((name) => name.slice(scheme.length).split('/'));
  const machines = ours.filter(([, kind]) => kind === 'machine');
  const [machine] = machines;
  if (machines.length !== 1 || ours.some((parts) => parts.length !== 3 || parts[0] !== machine![0])) return null;
  const [site, , name] = machine as [string, string, string];
  if (!isSiteId(site) || !isShortName(name)) return null;
  const roles = ours.filter(([, kind]) => kind === 'role').map(([, , role]) => role!);
  return roles.every(isMachineRole) ? { site: siteId(site), machineId: machineId(name), roles } : null;
}
