/** Enrolment over real connections. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer as createSlow, request } from 'node:https';
import { createServer as createPlain } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'node:tls';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createTestSite, type TestSite } from '../../tests/fixtures/security.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { errorCodeOf } from '../../schema/domain/errors.ts';
import { machineId } from '../../schema/domain/ids.ts';
import { type Credentials, openCredentials } from './credentials.ts';
import { enrolMachine, fetchState, parseSiteUrl, readEnrolment, renewMachine } from './enrolment-client.ts';
import { type EnrolmentServer, startEnrolmentServer } from './enrolment-server.ts';
import { describeSecurity, securityLayout, type SecurityLayout } from './security-layout.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const m2 = machineId('m2');
let folder: string;
let site: TestSite;
let layout: SecurityLayout;
let server: EnrolmentServer;
let url: URL;
/** Of the authority. */
let ahead: number;
const ends: (() => unknown)[] = [];

async function serve(of: TestSite, requestMs?: number): Promise<EnrolmentServer> {
  const credentials = await openCredentials(of.own.security, testSeams());
  const started = await startEnrolmentServer({
    listen: { host: '127.0.0.1', port: 0 },
    authority: of.authority,
    credentials,
    configurationOf: (machine) => Promise.resolve(`{"for":"${machine}"}`),
    log: testSeams().log,
    ...(requestMs === undefined ? {} : { requestMs }),
  });
  ends.push(
    () => started.close(),
    () => credentials.close(),
  );
  return started;
}
const urlOf = ({ address }: EnrolmentServer): URL => parseSiteUrl(`https://127.0.0.1:${address.port}`);
const tokenOf = async (of = site): Promise<string> =>
  (await of.authority.createToken({ machineId: m2, roles: ['proxy'], validMs: HOUR_MS })).token;
const enrol = (token: string, at = url, fingerprint: string | null = null) =>
  enrolMachine({ layout, url: at, token, fingerprint });
const own = (): Promise<Credentials> => openCredentials(describeSecurity(site.site, layout, undefined), testSeams());
async function refusalOf(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  return `${errorCodeOf(error)}: ${(error as Error | null)?.message}`;
}

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'td-enr-'));
  ahead = -61 * DAY_MS;
  site = await createTestSite(folder, 'lab', () => Date.now() + ahead);
  layout = securityLayout(path.join(folder, 'new-machine'));
  server = await serve(site);
  url = urlOf(server);
});
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
  await rm(folder, { recursive: true, force: true });
});

test('a machine enrols, asks for what is new, renews with a new key, and is shut out when it is revoked', async () => {
  const given = await enrol(await tokenOf(), url, site.authority.fingerprint);
  expect(given).toMatchObject({ machineId: 'm2', site: 'lab' });
  expect(await readEnrolment(layout)).toEqual({ url: url.origin });
  const credentials = await own();
  ends.push(() => credentials.close());
  const first = credentials.current();
  expect(await fetchState(url, first)).toEqual({
    revocations: await site.authority.revocations(),
    configuration: '{"for":"m2"}',
  });
  expect(await refusalOf(renewMachine(layout, url, first))).toMatch(/PEER_REFUSED.*not due/);
  ahead = 0;
  await renewMachine(layout, url, first);
  await credentials.reload();
  const second = credentials.current();
  expect(second.certificate).not.toBe(first.certificate);
  expect(second.key).not.toBe(first.key);
  await site.authority.revoke(m2);
  expect(await refusalOf(renewMachine(layout, url, second))).toMatch(/PEER_REFUSED.*revoked/);
});

test('a token that was used, a fingerprint that is another, a server of another site: each said, nothing stored', async () => {
  const token = await tokenOf();
  const other = await createTestSite(folder, 'other');
  const elsewhere = urlOf(await serve(other));
  expect(await refusalOf(enrol(token, elsewhere))).toMatch(/ENROLL_REFUSED.*is not of the site that made the token/);
  expect(await refusalOf(enrol(token, url, 'x'))).toMatch(/ENROLL_REFUSED.*was expected/);
  expect(await refusalOf(enrol('nonsense'))).toContain('ENROLL_REFUSED');
  expect(await readEnrolment(layout)).toBeNull();
  await enrol(token);
  expect(await refusalOf(enrol(token))).toMatch(/ENROLL_REFUSED.*was used already/);
  expect(() => parseSiteUrl('http://127.0.0.1:1')).toThrow('is no URL like https');
});

test('nobody there, somebody who speaks no TLS, a clock that is wrong: each said as what it is', async () => {
  const token = await tokenOf();
  expect(await refusalOf(enrol(token, parseSiteUrl('https://127.0.0.1:1')))).toContain('UNREACHABLE');
  const plain = createPlain((socket) => socket.end('hello\n'));
  await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve));
  ends.push(() => plain.close());
  const { port } = plain.address() as { port: number };
  expect(await refusalOf(enrol(token, parseSiteUrl(`https://127.0.0.1:${port}`)))).toContain('UNREACHABLE');
  const future = await createTestSite(folder, 'future', () => Date.now() + 24 * HOUR_MS);
  const ahead = await openCredentials(future.own.security, {
    ...testSeams(),
    clock: { ...testSeams().clock, now: () => Date.now() + 24 * HOUR_MS },
  });
  const early = await startEnrolmentServer({
    listen: { host: '127.0.0.1', port: 0 },
    authority: future.authority,
    credentials: ahead,
    configurationOf: () => Promise.resolve(null),
    log: testSeams().log,
  });
  ends.push(
    () => early.close(),
    () => ahead.close(),
  );
  expect(await refusalOf(enrol(await tokenOf(future), urlOf(early)))).toMatch(
    /CERTIFICATE_INVALID.*clock of this machine says/,
  );
});

test('hostile requests end in an error, and the server goes on', async () => {
  const post = (body: string, where = '/v1/enrol'): Promise<number | string> =>
    new Promise((resolve) => {
      const asked = request(new URL(where, url), { method: 'POST', rejectUnauthorized: false }, (response) => {
        response.resume().on('error', () => undefined);
        resolve(response.statusCode!);
      });
      asked.on('error', (error) => resolve(error.message));
      asked.end(body);
    });
  expect(await post('not json')).toBe(403);
  expect(await post('{"token":5}')).toBe(403);
  expect(await post('{}', '/v1/renew')).toBe(403);
  expect(await post('{}', '/v1/state')).toBe(404);
  expect(await post('{}', '/../../etc/passwd')).toBe(404);
  expect(await post('x'.repeat(17 * 1024))).toBe(403);
  expect(await enrol(await tokenOf())).toMatchObject({ machineId: 'm2' });
});

test('clients that say nothing, of one address or of many, keep out no machine, and are ended', async () => {
  await enrol(await tokenOf());
  const credentials = await own();
  ends.push(() => credentials.close());
  const quick = await serve(site, 3000);
  const at = urlOf(quick);
  const held: Socket[] = [];
  const hold = async (localAddress: string, count: number): Promise<void> => {
    for (let each = 0; each < count; each += 1) {
      const to = { host: '127.0.0.1', port: quick.address.port, localAddress, rejectUnauthorized: false };
      const socket = connect(to);
      held.push(socket);
      socket.on('error', () => undefined).resume();
      ends.push(() => socket.destroy());
      await new Promise((resolve) => void socket.once('secureConnect', resolve).once('close', resolve));
    }
  };
  const open = (): number => held.filter((socket) => !socket.closed).length;
  await hold('127.0.0.1', 64);
  while (open() > 16) await sleep(20);
  expect(await fetchState(at, credentials.current())).toMatchObject({ configuration: '{"for":"m2"}' });
  for (const last of [3, 4, 5, 6]) await hold(`127.0.0.${last}`, 16);
  while (open() > 24) await sleep(20);
  expect(await fetchState(at, credentials.current())).toMatchObject({ configuration: '{"for":"m2"}' });
  // Each has its time to ask, and no more.
  while (open() > 0) await sleep(100);
});

test('an answer that comes byte by byte is not waited for without end', async () => {
  await enrol(await tokenOf());
  const credentials = await own();
  ends.push(() => credentials.close());
  const pair = await readFile(site.layout.certificate);
  const slow = createSlow({ cert: pair, key: pair }, (_request, response) => {
    response.writeHead(200);
    const trickle = setInterval(() => response.write(' '), 20);
    response.on('close', () => clearInterval(trickle));
  });
  await new Promise<void>((resolve) => slow.listen(0, '127.0.0.1', resolve));
  ends.push(() => slow.close());
  const { port } = slow.address() as { port: number };
  const asked = fetchState(parseSiteUrl(`https://127.0.0.1:${port}`), credentials.current(), 1000);
  expect(await refusalOf(asked)).toMatch(/UNREACHABLE/);
});
