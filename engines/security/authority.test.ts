import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createTestSite, type TestSite } from '../../tests/fixtures/security.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { errorCodeOf } from '../../schema/domain/errors.ts';
import { machineId, siteId } from '../../schema/domain/ids.ts';
import { identityIn, type MachineRole, namesOf } from '../../schema/domain/security.ts';
import { initAuthority, openAuthority } from './authority.ts';
import { openCredentials } from './credentials.ts';
import { describeSecurity, securityLayout } from './security-layout.ts';
import { makeRequest, makeRevocations, readCertificate, readRevocations } from './x509.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
let folder: string;
let now: number;
let site: TestSite;
const m2 = machineId('m2');
const roles: MachineRole[] = ['proxy'];

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'td-ca-'));
  now = Date.now();
  site = await createTestSite(folder, 'lab', () => now);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const tokenFor = async (validMs = HOUR_MS): Promise<string> =>
  (await site.authority.createToken({ machineId: m2, roles, validMs })).token;
const requestOf = async (name = 'm2'): Promise<string> => (await makeRequest(name)).request;
const refusalOf = async (work: Promise<unknown>): Promise<string> => {
  const error: unknown = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  return `${errorCodeOf(error)}: ${(error as Error | null)?.message}`;
};

test('an authority is made once, its files are nobody else’s, and OpenSSL takes its chain', async () => {
  const first = { site: site.site, machineId: machineId('m1'), roles };
  const again = await initAuthority(site.layout, first, () => now);
  expect(again).toMatchObject({ isNew: false, authority: { fingerprint: site.authority.fingerprint } });
  const other = initAuthority(site.layout, { ...first, site: siteId('other') }, () => now);
  expect(await refusalOf(other)).toContain('BAD_REQUEST');
  const entries = await readdir(site.layout.folder, { recursive: true, withFileTypes: true });
  expect(entries.length).toBeGreaterThan(8);
  for (const entry of entries) {
    const { mode } = await stat(path.join(entry.parentPath, entry.name));
    expect([entry.name, (mode & 0o777).toString(8)]).toEqual([entry.name, entry.isDirectory() ? '700' : '600']);
  }
  const { authority, certificate, revocations } = site.layout;
  const verify = ['verify', '-x509_strict', '-crl_check', '-CAfile', authority, '-CRLfile', revocations];
  expect(execFileSync('openssl', [...verify, '-purpose', 'sslserver', certificate], { encoding: 'utf8' })).toContain(
    'OK',
  );
});

test('a token enrols one machine once, with what it says and not with what the request says', async () => {
  const token = await tokenFor();
  const given = await site.authority.enroll(token, await requestOf('somebody-else'));
  const facts = readCertificate(given.certificate, 'given');
  expect(identityIn(facts.names)).toEqual({ site: 'lab', machineId: m2, roles });
  expect(facts.notAfter).toBe(Math.floor(now / 1000) * 1000 + 90 * DAY_MS);
  expect(await refusalOf(site.authority.enroll(token, await requestOf()))).toMatch(
    /ENROLL_REFUSED.*m2 was used already/,
  );
  const secret = token.split('.')[1]!;
  for (const name of await readdir(site.layout.tokensFolder))
    expect(await readFile(path.join(site.layout.tokensFolder, name), 'utf8')).not.toContain(secret);
});

test('of two at once with one token, one is enrolled', async () => {
  const token = await tokenFor();
  const [a, b] = [await requestOf(), await requestOf()];
  const ends = await Promise.allSettled([site.authority.enroll(token, a), site.authority.enroll(token, b)]);
  expect(ends.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected']);
});

test('tokens that are expired, of another site, with another secret or none are refused, and what is asked must be proven', async () => {
  const token = await tokenFor(HOUR_MS);
  const [id, secret, fingerprint] = token.split('.') as [string, string, string];
  const request = await requestOf();
  expect(await refusalOf(site.authority.enroll('x', request))).toContain('ENROLL_REFUSED');
  const guess = `${id}.${secret.slice(0, -1)}${secret.endsWith('A') ? 'B' : 'A'}.${fingerprint}`;
  expect(await refusalOf(site.authority.enroll(guess, request))).toContain('is not known here');
  const other = await createTestSite(folder, 'other');
  expect(await refusalOf(other.authority.enroll(token, request))).toContain('is not known here');
  expect(await refusalOf(site.authority.enroll(token, 'nonsense'))).toContain('BAD_REQUEST');
  now += HOUR_MS;
  expect(await refusalOf(site.authority.enroll(token, request))).toMatch(/ENROLL_REFUSED.*expired at/);
});

test('a renewed certificate has the same machine and roles; a revoked machine gets none, and its tokens are void', async () => {
  const { certificate } = await site.authority.enroll(await tokenFor(), await requestOf());
  const { serial } = readCertificate(certificate, 'first');
  const peer = { site: site.site, machineId: m2, roles, serial };
  now += 59 * DAY_MS;
  expect(await refusalOf(site.authority.renew(peer, await requestOf()))).toMatch(/PEER_REFUSED.*is not due/);
  expect(await refusalOf(site.authority.renew({ ...peer, serial: '4a' }, await requestOf()))).toContain('not known');
  now += DAY_MS;
  const renewed = await site.authority.renew(peer, await requestOf());
  expect(identityIn(readCertificate(renewed.certificate, 'second').names)).toEqual({
    site: 'lab',
    machineId: m2,
    roles,
  });
  const unused = await tokenFor();
  const before = await readFile(site.layout.revocations);
  expect(await site.authority.revoke(m2)).toHaveLength(2);
  expect(await refusalOf(site.authority.renew(peer, await requestOf()))).toContain('PEER_REFUSED');
  expect(await refusalOf(site.authority.enroll(unused, await requestOf()))).toContain('is not known here');
  // Cut off before the list was written: the next one writes it, though nothing is left to revoke.
  await writeFile(site.layout.revocations, before);
  expect(await refusalOf(site.authority.revoke(m2))).toContain('NOT_FOUND');
  const { authority } = site.layout;
  const list = await readRevocations(await site.authority.revocations(), await readFile(authority, 'utf8'), 'list');
  expect(list).toMatchObject({ number: now + 1, issuedAt: Math.floor(now / 1000) * 1000 });
  expect(list.serials).toContain(serial);
  const views = (await site.authority.list()).filter((one) => one.machineId === m2);
  expect(views.map(({ revokedAt }) => revokedAt)).toEqual([now, now]);
});

test('a renewal that a revocation overtakes, on either side, leaves nothing that is valid', async () => {
  const { certificate } = await site.authority.enroll(await tokenFor(), await requestOf());
  const { serial } = readCertificate(certificate, 'first');
  const peer = { site: site.site, machineId: m2, roles, serial };
  now += 61 * DAY_MS;
  // Each looks at the clock between what it has read and what it writes: another process does its part there.
  let looks = 0;
  const watched = await openAuthority(site.layout, () => {
    looks += 1;
    if (looks === 2) writeFileSync(revokedFile(serial), JSON.stringify({ machineId: m2, revokedAt: now }));
    return now;
  });
  expect(await refusalOf(watched.renew(peer, await requestOf()))).toContain('PEER_REFUSED');
  expect((await site.authority.list()).filter((one) => one.machineId === m2 && one.revokedAt === null)).toEqual([]);
  await rm(revokedFile(serial));
  looks = 0;
  const renewed = { machineId: m2, roles, serial: '4a', issuedAt: now, notAfter: now + DAY_MS };
  const revoking = await openAuthority(site.layout, () => {
    looks += 1;
    if (looks === 2) writeFileSync(path.join(site.layout.issuedFolder, '4a.json'), JSON.stringify(renewed));
    return now;
  });
  expect((await revoking.revoke(m2)).map((one) => one.serial)).toEqual([serial, '4a']);
  const list = await readRevocations(await revoking.revocations(), await readFile(site.layout.authority, 'utf8'), 'x');
  expect(list.serials).toContain('4a');
});
const revokedFile = (serial: string): string => path.join(site.layout.revokedFolder, `${serial}.json`);

test('commands that revoke at once lose nothing, and the last list has a higher number than any before', async () => {
  const names = ['a', 'b', 'c', 'd'];
  for (const name of names) await site.machine(name, roles);
  const authority = await readFile(site.layout.authority, 'utf8');
  const factsNow = async () => readRevocations(await site.authority.revocations(), authority, 'list');
  const seen = new Map<number, number>();
  const ending = new AbortController();
  const watching = (async () => {
    for (; !ending.signal.aborted; await setImmediate()) {
      const { number, serials } = await factsNow();
      seen.set(number, Math.max(seen.get(number) ?? 0, serials.length));
    }
  })();
  const others = await Promise.all(names.map(() => openAuthority(site.layout, () => now)));
  await Promise.all(others.map((each, at) => each.revoke(machineId(names[at]!))));
  ending.abort();
  await watching;
  const last = await factsNow();
  expect(last.serials).toHaveLength(4);
  for (const number of seen.keys()) expect(number).toBeLessThanOrEqual(last.number);
  expect(seen.get(last.number) ?? 4).toBe(4);
  // After the authority's files were brought back from a copy, too: its clock goes on.
  now += 1000;
  await site.machine('e', roles);
  await writeFile(site.layout.revocations, await makeList(1));
  await rm(path.join(site.layout.revokedFolder, `${last.number}.number`));
  await site.authority.revoke(machineId('e'));
  expect((await factsNow()).number).toBeGreaterThan(last.number);
});
const makeList = async (number: number): Promise<string> => {
  const [key, certificate] = [
    await readFile(site.layout.authorityKey, 'utf8'),
    await readFile(site.layout.authority, 'utf8'),
  ];
  return await makeRevocations({ key, certificate }, { number, issuedAt: now, serials: [] });
};

test('names that say two machines, two sites or an unknown role are nobody’s', () => {
  const names = namesOf({ site: siteId('lab'), machineId: m2, roles: ['proxy', 'host'] });
  expect(identityIn(['www.example.org', ...names])).toEqual({ site: 'lab', machineId: 'm2', roles: ['proxy', 'host'] });
  expect(identityIn([...names, 'tidemark://site/lab/machine/m3'])).toBeNull();
  expect(identityIn([...names, 'tidemark://site/other/role/proxy'])).toBeNull();
  expect(identityIn([...names, 'tidemark://site/lab/role/king'])).toBeNull();
  expect(identityIn([...names, 'tidemark://site/lab/role/proxy/extra'])).toBeNull();
  expect(identityIn(['tidemark://site/lab/machine/Not A Name'])).toBeNull();
  expect(identityIn(['www.example.org'])).toBeNull();
});

describe('credentials', () => {
  const open = async (security = site.own.security) => openCredentials(security, testSeams());
  const rawOf = async (file: string): Promise<{ raw: Buffer }> => ({
    raw: new X509Certificate(await readFile(file)).raw,
  });

  test('know whose a certificate is, take a new one and a revocation without a restart, and no older list', async () => {
    const { layout } = await site.machine('m2', roles);
    const credentials = await open();
    const peer = credentials.peerOf(await rawOf(layout.certificate));
    expect(peer).toMatchObject({ site: 'lab', machineId: 'm2', roles });
    const before = await readFile(site.layout.revocations, 'utf8');
    let changes = 0;
    credentials.onChange(() => (changes += 1));
    await site.authority.revoke(m2);
    await credentials.reload();
    expect([changes, credentials.isRevoked(peer)]).toEqual([1, true]);
    expect(() => credentials.peerOf({ raw: Buffer.alloc(3) })).toThrow('cannot be read');
    await writeFile(site.layout.revocations, before);
    await credentials.reload();
    expect(credentials.isRevoked(peer)).toBe(true);
    const { certificate } = credentials.current();
    await writeFile(site.layout.certificate, 'half a fi');
    await credentials.reload();
    expect(credentials.current().certificate).toBe(certificate);
    credentials.close();
  });

  test('a list that somebody else signed is not taken', async () => {
    const other = await createTestSite(folder, 'other');
    const credentials = await open();
    await writeFile(site.layout.revocations, await other.authority.revocations());
    await credentials.reload();
    expect(credentials.current().authority).toBe(await readFile(site.layout.authority, 'utf8'));
    credentials.close();
  });

  test('take no list that is missing, empty or unreadable for an empty one, and read it when it is mended', async () => {
    const { layout } = await site.machine('m2', roles);
    await site.authority.revoke(m2);
    const revoked = await rawOf(layout.certificate);
    const own = securityLayout(path.join(folder, 'own'));
    const { files } = site.own.security;
    const machines = [{ name: namesOf({ site: site.site, machineId: m2, roles })[0]!, machineId: m2, roles }];
    const list = path.join(folder, 'list.pem');
    const good = await site.authority.revocations();
    const shapes: [() => Promise<unknown>, typeof machines | null][] = [
      [() => Promise.resolve(), machines],
      [() => writeFile(list, ''), null],
      [() => mkdir(list), null],
    ];
    for (const [make, named] of shapes) {
      await make();
      const security = { ...site.own.security, machines: named, files: { ...files, revocations: list } };
      const credentials = await open(security);
      expect(() => credentials.current()).toThrow(list);
      expect(() => credentials.peerOf(revoked)).toThrow(list);
      await rm(list, { recursive: true, force: true });
      await writeFile(list, good);
      await credentials.reload();
      expect(() => credentials.peerOf(revoked)).toThrow('was revoked');
      await rm(list);
      await writeFile(list, '');
      await credentials.reload();
      expect(() => credentials.peerOf(revoked)).toThrow('was revoked');
      credentials.close();
      await rm(list);
    }
    const none = await open({ ...site.own.security, files: { ...files, revocations: own.revocations } });
    expect(none.current().certificate).toBe(await readFile(files.certificate, 'utf8'));
    none.close();
  });

  test('take no authority file that is empty or cut off, and keep the one of before', async () => {
    const authority = path.join(folder, 'ca.pem');
    const good = await readFile(site.layout.authority, 'utf8');
    const cut = good.slice(0, good.length / 2);
    const own = { ...site.own.security, files: { ...site.own.security.files, authority, revocations: null } };
    for (const text of ['', 'no certificate\n', cut, `${good}${cut}`, '-----BEGIN CERTIFICATE-----\nMIIB']) {
      await writeFile(authority, text);
      const credentials = await open(own);
      expect(() => credentials.current()).toThrow(`${authority} cannot be read`);
      const both = `# two of them\n${good}# the second\n${good}`;
      await writeFile(authority, both);
      await credentials.reload();
      await writeFile(authority, text);
      await credentials.reload();
      expect(credentials.current().authority).toBe(both);
      credentials.close();
    }
  });

  test('let in no certificate before or after its time, which a resumed session would not look at', async () => {
    const { layout } = await site.machine('m2', roles);
    let at = now;
    const clock = { ...testSeams().clock, now: () => at };
    const credentials = await openCredentials(site.own.security, { ...testSeams(), clock });
    const certificate = await rawOf(layout.certificate);
    expect(credentials.peerOf(certificate).machineId).toBe(m2);
    at = now - HOUR_MS;
    expect(() => credentials.peerOf(certificate)).toThrow(/is valid from .* and it is .* here/);
    at = now + 90 * DAY_MS;
    expect(() => credentials.peerOf(certificate)).toThrow(/is valid from .* and it is .* here/);
    credentials.close();
  });

  test('go on when a listener throws: the others hear of it, and the next change is read', async () => {
    const { layout } = await site.machine('m2', roles);
    const told: string[] = [];
    const log = { ...testSeams().log, error: (message: string) => void told.push(message) };
    const credentials = await openCredentials(site.own.security, { ...testSeams(), log });
    let changes = 0;
    credentials.onChange(() => {
      throw new Error('not now');
    });
    credentials.onChange(() => (changes += 1));
    const peer = credentials.peerOf(await rawOf(layout.certificate));
    await writeFile(site.layout.certificate, await readFile(site.layout.certificate));
    await credentials.reload();
    await site.authority.revoke(m2);
    await credentials.reload();
    expect([changes, credentials.isRevoked(peer), told.length]).toEqual([2, true, 2]);
    credentials.close();
  });

  test('say what is wrong: none yet, the key of another, out of time', async () => {
    const absent = await open(describeSecurity(site.site, securityLayout(path.join(folder, 'none')), undefined));
    expect(() => absent.current()).toThrow('has no certificate yet');
    const { security } = await site.machine('m2', roles);
    const mixed = await open({ ...security, files: { ...security.files, key: site.layout.key } });
    expect(() => mixed.current()).toThrow('is not the key of');
    const late = await openCredentials(site.own.security, {
      ...testSeams(),
      clock: { ...testSeams().clock, now: () => now + 91 * DAY_MS },
    });
    expect(() => late.current()).toThrow(/is valid from .* and the clock of this machine says/);
    for (const each of [absent, mixed, late]) each.close();
  });

  test('in an own PKI a name among those of the certificate says which machine it is', async () => {
    const { layout } = await site.machine('m2', roles);
    const [name] = namesOf({ site: site.site, machineId: m2, roles });
    const machines = [{ name: name!, machineId: machineId('other-name'), roles: ['repository' as const] }];
    const own = await open({ ...site.own.security, machines });
    expect(own.peerOf(await rawOf(layout.certificate))).toMatchObject({
      machineId: 'other-name',
      roles: ['repository'],
    });
    expect(() => own.peerOf({ raw: Buffer.alloc(0) })).toThrow();
    const unknown = await open({ ...site.own.security, machines: [{ ...machines[0]!, name: 'x.example.org' }] });
    const { raw } = await rawOf(layout.certificate);
    expect(() => unknown.peerOf({ raw })).toThrow('names no machine');
    for (const each of [own, unknown]) each.close();
  });
});
