/**
 * The site's certificate authority: files of the machine that runs the stack. The control worker and commands use it side
 * by side: what changes is a file of its own each, made or renamed at once.
 */
import { readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { type MachineId, siteId, type SiteId } from '../../schema/domain/ids.ts';
import { type MachineIdentity, type MachineRole, type Peer } from '../../schema/domain/security.ts';
import { makePrivate, makePrivateFolder, readIfThere, writePrivate } from './private-files.ts';
import type { SecurityLayout } from './security-layout.ts';
import { checkToken, createToken, removeTokensOf } from './tokens.ts';
import {
  type KeyPair,
  makeAuthority,
  makeRequest,
  makeRevocations,
  readCertificate,
  readRevocations,
  signRequest,
} from './x509.ts';

/** Of commands that write the revocation list side by side. */
const MOST_TRIES = 100;
const LONGEST_PAUSE_MS = 50;
const AUTHORITY_DAYS = 3650;
/** Renewed at two thirds of it. */
export const CERTIFICATE_DAYS = 90;
export const TOKEN_MS = 60 * 60_000;
/** A machine whose clock is a little ahead asks a little early. */
const EARLY_MS = 60 * 60_000;

/** A certificate given out. Times: milliseconds since the epoch. */
export type Issued = { machineId: MachineId; roles: MachineRole[]; serial: string; issuedAt: number; notAfter: number };
export type IssuedView = Issued & { revokedAt: number | null };
/** PEM: what a machine is given. */
export type Enrolled = {
  machineId: MachineId;
  site: SiteId;
  certificate: string;
  authority: string;
  revocations: string;
};

/** At two thirds of its life: what is left is time to mend what keeps it from being renewed. */
export const isDue = ({ notBefore, notAfter }: { notBefore: number; notAfter: number }, now: number): boolean =>
  now >= notBefore + (2 / 3) * (notAfter - notBefore);

export type Authority = {
  readonly site: SiteId;
  /** Of its certificate: SHA-256, base64url. */
  readonly fingerprint: string;
  createToken(of: {
    machineId: MachineId;
    roles: MachineRole[];
    validMs: number;
  }): Promise<{ token: string; expiresAt: number }>;
  /** ENROLL_REFUSED, BAD_REQUEST. */
  enroll(token: string, request: string): Promise<Enrolled>;
  /** PEER_REFUSED for a certificate that was revoked, is not due, or not known here; the connection has proven `peer`. */
  renew(peer: Peer, request: string): Promise<Enrolled>;
  /** All certificates of the machine, and its tokens. NOT_FOUND: it has none that could be revoked. */
  revoke(machineId: MachineId): Promise<IssuedView[]>;
  list(): Promise<IssuedView[]>;
  /** PEM. */
  revocations(): Promise<string>;
};

/**
 * Makes the authority, and the first machine's own certificate. Done before: nothing is changed, `isNew` false.
 * BAD_REQUEST: it is another site's.
 */
export async function initAuthority(
  layout: SecurityLayout,
  first: MachineIdentity,
  now: () => number,
): Promise<{ authority: Authority; isNew: boolean }> {
  const there = await readIfThere(layout.siteFile);
  if (there !== null && there.trim() !== first.site)
    throw new TidemarkError(
      'BAD_REQUEST',
      `${layout.folder} has the authority of site ${there.trim()}, not of ${first.site}`,
    );
  if (there === null) await makeFiles(layout, first.site, now());
  const authority = await openAuthority(layout, now);
  if ((await readIfThere(layout.certificate)) === null) await certifyOwn(layout, first, now);
  return { authority, isNew: there === null };
}

/** `site` is written last: before it there is no authority, and a half made one is made anew. */
async function makeFiles(layout: SecurityLayout, site: SiteId, now: number): Promise<void> {
  for (const folder of [
    layout.folder,
    layout.authorityFolder,
    layout.tokensFolder,
    layout.issuedFolder,
    layout.revokedFolder,
  ])
    await makePrivateFolder(folder);
  const made = await makeAuthority(`Tidemark site ${site}`, AUTHORITY_DAYS, now);
  await writePrivate(layout.authorityKey, made.key);
  await writePrivate(layout.authority, made.certificate);
  await writePrivate(layout.revocations, await makeRevocations(made, { number: 1, issuedAt: now, serials: [] }));
  await writePrivate(layout.siteFile, `${site}\n`);
}

async function certifyOwn(layout: SecurityLayout, identity: MachineIdentity, now: () => number): Promise<void> {
  const pair = await readPair(layout);
  const { key, request } = await makeRequest(identity.machineId);
  const certificate = await issue(layout, pair, identity, request, now());
  await writePrivate(layout.certificate, `${key}${certificate}`);
}

async function readPair({ authorityKey, authority, folder }: SecurityLayout): Promise<KeyPair> {
  const [key, certificate] = [await readIfThere(authorityKey), await readIfThere(authority)];
  if (key !== null && certificate !== null) return { key, certificate };
  throw new TidemarkError('SECURITY_NOT_READY', `there is no certificate authority in ${folder}`, { folder });
}

const issuedFile = ({ issuedFolder }: SecurityLayout, serial: string): string =>
  path.join(issuedFolder, `${serial}.json`);
const revokedFile = ({ revokedFolder }: SecurityLayout, serial: string): string =>
  path.join(revokedFolder, `${serial}.json`);

/** Recorded before it is given out: what was given out can be revoked. */
async function issue(
  layout: SecurityLayout,
  pair: KeyPair,
  identity: MachineIdentity,
  request: string,
  now: number,
): Promise<string> {
  const certificate = await signRequest(pair, { request, identity, validDays: CERTIFICATE_DAYS, now });
  const { serial, notAfter } = readCertificate(certificate, 'the new certificate');
  const { machineId, roles } = identity;
  const issued: Issued = { machineId, roles, serial, issuedAt: now, notAfter };
  await writePrivate(issuedFile(layout, serial), JSON.stringify(issued));
  return certificate;
}

/** Null when this machine has none: it is on another one, or the site has a PKI of its own. */
export async function findAuthority(layout: SecurityLayout, now: () => number): Promise<Authority | null> {
  return (await readIfThere(layout.siteFile)) === null ? null : await openAuthority(layout, now);
}

/** SECURITY_NOT_READY when there is none. */
export async function openAuthority(layout: SecurityLayout, now: () => number): Promise<Authority> {
  const pair = await readPair(layout);
  const site = siteId(((await readIfThere(layout.siteFile)) ?? '').trim());
  const { fingerprint } = readCertificate(pair.certificate, layout.authority);
  const give = async (identity: MachineIdentity, request: string): Promise<Enrolled> => ({
    machineId: identity.machineId,
    site,
    certificate: await issue(layout, pair, identity, request, now()),
    authority: pair.certificate,
    revocations: await currentRevocations(layout),
  });
  return {
    site,
    fingerprint,
    createToken: async ({ machineId, roles, validMs }) => {
      const expiresAt = now() + validMs;
      const token = await createToken(layout.tokensFolder, { machineId, roles, expiresAt }, fingerprint, now());
      return { token, expiresAt };
    },
    enroll: async (text, request) => {
      const token = await checkToken(layout.tokensFolder, text, now());
      const given = await give({ site, machineId: token.machineId, roles: token.roles }, request);
      await token.use();
      return given;
    },
    renew: async ({ machineId, roles, serial }, request) => {
      await requireRenewable(layout, machineId, serial, now());
      const given = await give({ site, machineId, roles }, request);
      // Whoever revokes has written it before it lists what there is: either it is seen here, or the new one there.
      const revoked = await revokedAt(layout, serial);
      if (revoked === null) return given;
      await writeRevoked(layout, readCertificate(given.certificate, 'the new certificate').serial, machineId, revoked);
      throw wasRevoked(machineId, serial);
    },
    revoke: (machineId) => revoke(layout, pair, machineId, now),
    list: () => listIssued(layout),
    revocations: () => currentRevocations(layout),
  };
}

const wasRevoked = (machineId: MachineId, serial: string): TidemarkError =>
  new TidemarkError('PEER_REFUSED', `the certificate of machine ${machineId} was revoked`, { machineId, serial });

/** One that is not recorded here could not be revoked: it is not made to last. */
async function requireRenewable(
  layout: SecurityLayout,
  machineId: MachineId,
  serial: string,
  now: number,
): Promise<void> {
  if ((await revokedAt(layout, serial)) !== null) throw wasRevoked(machineId, serial);
  const text = await readIfThere(issuedFile(layout, serial));
  const issued = text === null ? null : (JSON.parse(text) as Issued);
  if (issued && isDue({ notBefore: issued.issuedAt, notAfter: issued.notAfter }, now + EARLY_MS)) return;
  const why = issued ? 'is not due to be renewed' : 'is not known here: enrol the machine again';
  throw new TidemarkError('PEER_REFUSED', `the certificate of machine ${machineId} ${why}`, { machineId, serial });
}

async function revokedAt(layout: SecurityLayout, serial: string): Promise<number | null> {
  const text = await readIfThere(revokedFile(layout, serial));
  return text === null ? null : (JSON.parse(text) as { revokedAt: number }).revokedAt;
}

async function listIssued(layout: SecurityLayout): Promise<IssuedView[]> {
  const views: IssuedView[] = [];
  for (const name of await readdir(layout.issuedFolder)) {
    if (!name.endsWith('.json')) continue;
    const text = await readIfThere(path.join(layout.issuedFolder, name));
    if (text === null) continue;
    const issued = JSON.parse(text) as Issued;
    views.push({ ...issued, revokedAt: await revokedAt(layout, issued.serial) });
  }
  return views.toSorted((a, b) => a.machineId.localeCompare(b.machineId) || a.issuedAt - b.issuedAt);
}

async function currentRevocations({ revocations }: SecurityLayout): Promise<string> {
  const text = await readIfThere(revocations);
  if (text !== null) return text;
  throw new TidemarkError('SECURITY_NOT_READY', `the revocation list ${revocations} is missing`, { file: revocations });
}

const writeRevoked = (layout: SecurityLayout, serial: string, machineId: MachineId, at: number): Promise<void> =>
  writePrivate(revokedFile(layout, serial), JSON.stringify({ machineId, revokedAt: at }));

async function revoke(
  layout: SecurityLayout,
  pair: KeyPair,
  machineId: MachineId,
  now: () => number,
): Promise<IssuedView[]> {
  await removeTokensOf(layout.tokensFolder, machineId);
  const revoked: IssuedView[] = [];
  // Again until none is left: one may have been renewed before the one it was renewed with was revoked.
  for (
    let open = await openOf(layout, machineId, now());
    open.length > 0;
    open = await openOf(layout, machineId, now())
  )
    for (const one of open) {
      const at = now();
      await writeRevoked(layout, one.serial, machineId, at);
      revoked.push({ ...one, revokedAt: at });
    }
  // One that was cut off before it had published.
  const isOwed = revoked.length === 0 && !(await isPublished(layout, pair));
  if (revoked.length > 0 || isOwed) await publishRevocations(layout, pair, now);
  if (revoked.length === 0)
    throw new TidemarkError('NOT_FOUND', `machine ${machineId} has no certificate that is valid`, { machineId });
  return revoked;
}

/** The list names all that is revoked. */
async function isPublished(layout: SecurityLayout, pair: KeyPair): Promise<boolean> {
  const { serials } = await readRevocations(await currentRevocations(layout), pair.certificate, layout.revocations);
  return (await revokedSerials(layout)).every((serial) => serials.includes(serial));
}

const openOf = async (layout: SecurityLayout, machineId: MachineId, now: number): Promise<IssuedView[]> =>
  (await listIssued(layout)).filter(
    (one) => one.machineId === machineId && one.revokedAt === null && one.notAfter > now,
  );

const revokedSerials = async ({ revokedFolder }: SecurityLayout): Promise<string[]> =>
  (await readdir(revokedFolder)).filter((name) => name.endsWith('.json')).map((name) => name.slice(0, -'.json'.length));

/** Again when another command has revoked meanwhile: whoever writes last has them all, and the highest number. */
async function publishRevocations(layout: SecurityLayout, pair: KeyPair, now: () => number): Promise<void> {
  for (let tries = 0; tries < MOST_TRIES; tries += 1) {
    const before = await readRevocations(await currentRevocations(layout), pair.certificate, layout.revocations);
    const number = await claimNumber(layout, Math.max(before.number + 1, now()));
    const next = { number, issuedAt: now(), serials: await revokedSerials(layout) };
    await writePrivate(layout.revocations, await makeRevocations(pair, next));
    const written = await readRevocations(await currentRevocations(layout), pair.certificate, layout.revocations);
    const isWhole = (await revokedSerials(layout)).every((serial) => written.serials.includes(serial));
    if (isWhole && written.number === Math.max(...(await claimedNumbers(layout)))) return;
    // Those that write at once would overtake one another for ever at the same pace.
    await sleep(Math.random() * LONGEST_PAUSE_MS);
  }
  throw new TidemarkError('BUG', `the revocation list ${layout.revocations} does not come to hold what was revoked`);
}

const CLAIM = '.number';
const claimedNumbers = async ({ revokedFolder }: SecurityLayout): Promise<number[]> =>
  (await readdir(revokedFolder))
    .filter((name) => name.endsWith(CLAIM))
    .map((name) => Number(name.slice(0, -CLAIM.length)));

/** A number that no other list has or had: machines take none that is not higher than theirs. */
async function claimNumber(layout: SecurityLayout, lowest: number): Promise<number> {
  const at = (number: number): string => path.join(layout.revokedFolder, `${number}${CLAIM}`);
  const before = await claimedNumbers(layout);
  for (let number = Math.max(lowest, ...before.map((each) => each + 1)); ; number += 1) {
    const isOurs = await makePrivate(at(number));
    if (!isOurs) continue;
    for (const old of before) await rm(at(old), { force: true });
    return number;
  }
}
