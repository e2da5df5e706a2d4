/** `tidemark site init`, `tidemark machine ...`, `tidemark host enroll`: who belongs to a site. Works on files, and needs no stack. */
import { hostname } from 'node:os';
import { randomInt } from 'node:crypto';
import { text as readAll } from 'node:stream/consumers';
import { type IssuedView, initAuthority, openAuthority } from '../../engines/security/authority.ts';
import { enrolMachine, fetchState, parseSiteUrl } from '../../engines/security/enrolment-client.ts';
import { openCredentials } from '../../engines/security/credentials.ts';
import { readIfThere, writePrivate } from '../../engines/security/private-files.ts';
import { describeSecurity, securityLayout, type SecurityLayout } from '../../engines/security/security-layout.ts';
import { readCertificate } from '../../engines/security/x509.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { isShortName, isSiteId, machineId, type MachineId, siteId, type SiteId } from '../../schema/domain/ids.ts';
import { identityIn, isMachineRole, type MachineRole, machineRoles } from '../../schema/domain/security.ts';
import { loadMachine } from '../../workers/runtime/config.ts';
import { commandSeams } from '../command-seams.ts';
import { exitCodes } from '../exit-codes.ts';
import { machineNameOf } from '../machine-name.ts';
import { formatTime, renderTable } from '../output/table.ts';
import { printJson } from '../run-command.ts';
import { layoutOf } from '../stack-access.ts';

export type SecurityOptions = { state?: string; json?: boolean };
const now = (): number => Date.now();
const iso = (ms: number): string => new Date(ms).toISOString();

function machineOf(text: string): MachineId {
  if (isShortName(text)) return machineId(text);
  throw new TidemarkError(
    'BAD_REQUEST',
    `${JSON.stringify(text)} is no name of a machine: 1 to 32 of a-z, 0-9 and "-"`,
  );
}

function siteOf(text: string): SiteId {
  if (isSiteId(text)) return siteId(text);
  throw new TidemarkError('BAD_REQUEST', `${JSON.stringify(text)} is no name of a site: 1 to 6 of a-z and 0-9`);
}

const freshSite = (): SiteId => siteId(Array.from({ length: 6 }, () => randomInt(36).toString(36)).join(''));

/** BAD_REQUEST: there is the authority of another site. */
export async function initSite(options: SecurityOptions & { site?: string; machine?: string }): Promise<number> {
  const layout = layoutOf(options.state);
  const files = securityLayout(layout.configFolder);
  const applied = await loadMachine(layout);
  const known = (await readIfThere(files.siteFile))?.trim() ?? applied?.site;
  const site = siteOf(options.site ?? known ?? freshSite());
  if (applied && applied.site !== site)
    throw new TidemarkError('BAD_REQUEST', `site.yaml was applied with site ${applied.site}, and this is ${site}`);
  const own = machineOf(options.machine ?? applied?.machineId ?? machineNameOf(hostname()));
  const first = { site, machineId: own, roles: [...machineRoles] };
  const { authority, isNew } = await initAuthority(files, first, now);
  const { fingerprint } = authority;
  if (options.json) printJson({ site, machineId: own, fingerprint, isNew, folder: files.folder });
  else {
    console.log(
      `site ${site}: its certificate authority ${isNew ? 'is made' : 'was there already'}, in ${files.folder}`,
    );
    console.log(`fingerprint: ${fingerprint}`);
    if (isNew)
      console.log('Keep a copy of this folder in a safe place: who has it can make himself any machine of the site.');
  }
  return exitCodes.ok;
}

/** Whom the certificate of this machine is of; null: it has none. */
async function ownMachine({ certificate }: SecurityLayout): Promise<MachineId | null> {
  const pem = await readIfThere(certificate);
  return pem === null ? null : (identityIn(readCertificate(pem, certificate).names)?.machineId ?? null);
}

function rolesOf(text: string): MachineRole[] {
  const roles = [...new Set(text.split(',').map((role) => role.trim()))];
  const wrong = roles.find((role) => !isMachineRole(role) || role === 'control');
  if (wrong === undefined) return roles as MachineRole[];
  throw new TidemarkError(
    'BAD_REQUEST',
    `${JSON.stringify(wrong)} is no role: host, proxy, repository, or several with commas`,
  );
}

/** SECURITY_NOT_READY before `site init`. */
export async function createMachineToken(
  machine: string,
  options: SecurityOptions & { roles: string; validFor: number },
): Promise<number> {
  const layout = layoutOf(options.state);
  const authority = await openAuthority(securityLayout(layout.configFolder), now);
  const of = { machineId: machineOf(machine), roles: rolesOf(options.roles), validMs: options.validFor };
  const { token, expiresAt } = await authority.createToken(of);
  const served = JSON.parse((await readIfThere(layout.enrolmentFile)) ?? 'null') as { url: string } | null;
  const { fingerprint } = authority;
  const url = served?.url ?? null;
  if (options.json)
    printJson({ machineId: machine, roles: of.roles, token, expiresAt: iso(expiresAt), url, fingerprint });
  else {
    console.log(`For machine ${machine}, once, until ${formatTime(iso(expiresAt))}. On that machine:`);
    console.log(`  tidemark host enroll --site ${url ?? 'https://<this machine>:<port>'} --token-file -`);
    console.log(`and give it this line, and the end of its input (Ctrl-D):\n  ${token}`);
    if (url === null)
      console.log('The stack does not run: start it, and see `enrolment` in site.yaml for the address.');
  }
  return exitCodes.ok;
}

const stateOf = ({ revokedAt, notAfter }: IssuedView): string =>
  revokedAt !== null ? `revoked ${formatTime(iso(revokedAt))}` : notAfter <= now() ? 'expired' : 'valid';

export async function listMachines(options: SecurityOptions): Promise<number> {
  const authority = await openAuthority(securityLayout(layoutOf(options.state).configFolder), now);
  const certificates = await authority.list();
  if (options.json) {
    const times = ({ issuedAt, notAfter, revokedAt, ...rest }: IssuedView) => ({
      ...rest,
      issuedAt: iso(issuedAt),
      notAfter: iso(notAfter),
      revokedAt: revokedAt === null ? null : iso(revokedAt),
    });
    printJson({ site: authority.site, fingerprint: authority.fingerprint, certificates: certificates.map(times) });
    return exitCodes.ok;
  }
  const columns = [
    { title: 'MACHINE', of: (one: IssuedView) => one.machineId },
    { title: 'ROLES', of: (one: IssuedView) => one.roles.join(', ') },
    { title: 'STATE', of: stateOf },
    { title: 'ISSUED', of: (one: IssuedView) => formatTime(iso(one.issuedAt)) },
    { title: 'VALID UNTIL', of: (one: IssuedView) => formatTime(iso(one.notAfter)) },
    { title: 'SERIAL', of: (one: IssuedView) => one.serial },
  ];
  console.log(`site ${authority.site}, fingerprint ${authority.fingerprint}\n`);
  console.log(renderTable(certificates, columns));
  return exitCodes.ok;
}

/** NOT_FOUND: it has no certificate that is valid. BAD_REQUEST: it is this machine, which all others rely on. */
export async function revokeMachine(machine: string, options: SecurityOptions): Promise<number> {
  const files = securityLayout(layoutOf(options.state).configFolder);
  const authority = await openAuthority(files, now);
  if (machine === (await ownMachine(files)))
    throw new TidemarkError(
      'BAD_REQUEST',
      `machine ${machine} is the stack's own: without its certificate no machine of the site could enrol or renew, and no transfer reach it`,
      { machineId: machine },
    );
  const revoked = await authority.revoke(machineOf(machine));
  if (options.json) printJson({ machineId: machine, revoked: revoked.map(({ serial }) => serial) });
  else
    console.log(
      `machine ${machine}: ${revoked.length} certificate${revoked.length === 1 ? ' is' : 's are'} revoked; its connections end within seconds`,
    );
  return exitCodes.ok;
}

export type EnrolOptions = SecurityOptions & {
  site: string;
  token?: string;
  tokenFile?: string;
  caFingerprint?: string;
};

/** BAD_REQUEST: there is none, or its file cannot be read. */
async function tokenOf({ token, tokenFile }: EnrolOptions): Promise<string> {
  const found = tokenFile === undefined ? (token ?? process.env['TIDEMARK_ENROLL_TOKEN']) : await tokenIn(tokenFile);
  if (found) return found;
  throw new TidemarkError('BAD_REQUEST', 'no token: neither --token-file nor TIDEMARK_ENROLL_TOKEN has one');
}

async function tokenIn(file: string): Promise<string> {
  if (file === '-') return (await readAll(process.stdin)).trim();
  const text = await readIfThere(file);
  if (text !== null) return text.trim();
  throw new TidemarkError('BAD_REQUEST', `there is no file ${file} with a token`, { file });
}

/** ENROLL_REFUSED, CERTIFICATE_INVALID (clocks), UNREACHABLE. */
export async function enrolHere(options: EnrolOptions): Promise<number> {
  const layout = layoutOf(options.state);
  const files = securityLayout(layout.configFolder);
  if ((await readIfThere(files.siteFile)) !== null)
    throw new TidemarkError(
      'BAD_REQUEST',
      `${files.folder} has the authority of a site: its machine needs no enrolment`,
    );
  const url = parseSiteUrl(options.site);
  const { caFingerprint = null } = options;
  const token = await tokenOf(options);
  const given = await enrolMachine({ layout: files, url, token, fingerprint: caFingerprint });
  const credentials = await openCredentials(describeSecurity(given.site, files, undefined), commandSeams);
  const { configuration } = await fetchState(url, credentials.current());
  credentials.close();
  if (configuration !== null) await writePrivate(layout.machineFile, configuration);
  const { machineId: machine, site, notAfter } = given;
  if (options.json)
    printJson({ machineId: machine, site, notAfter: iso(notAfter), isConfigured: configuration !== null });
  else {
    console.log(`this is machine ${machine} of site ${site} now; its certificate is renewed by itself`);
    if (configuration === null)
      console.log('site.yaml has nothing for it yet; it fetches its configuration when there is some.');
  }
  return exitCodes.ok;
}
