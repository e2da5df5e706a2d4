import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { isDue } from '../../engines/security/authority.ts';
import { openCredentials } from '../../engines/security/credentials.ts';
import { enrolMachine, parseSiteUrl } from '../../engines/security/enrolment-client.ts';
import { type EnrolmentServer, startEnrolmentServer } from '../../engines/security/enrolment-server.ts';
import { securityLayout } from '../../engines/security/security-layout.ts';
import { stackLayout, type StackLayout } from '../../engines/stack/layout.ts';
import { machineId } from '../../schema/domain/ids.ts';
import { createTestSite, type TestSite } from '../../tests/fixtures/security.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { keepSecurity } from './keep-security.ts';

const DAY_MS = 86_400_000;
let folder: string;
let site: TestSite;
let server: EnrolmentServer;
let layout: StackLayout;
let configuration: string | null;
/** Of the authority and of the machine. */
let ahead: number;
const ends: (() => unknown)[] = [];

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'td-keep-'));
  ahead = 0;
  site = await createTestSite(folder, 'lab', () => Date.now() + ahead);
  configuration = null;
  const credentials = await openCredentials(site.own.security, testSeams());
  server = await startEnrolmentServer({
    listen: { host: '127.0.0.1', port: 0 },
    authority: site.authority,
    credentials,
    configurationOf: () => Promise.resolve(configuration),
    log: testSeams().log,
  });
  ends.push(
    () => server.close(),
    () => credentials.close(),
  );
  layout = stackLayout(path.join(folder, 'm2'));
  const of = { machineId: machineId('m2'), roles: ['proxy' as const], validMs: DAY_MS };
  const { token } = await site.authority.createToken(of);
  const url = parseSiteUrl(`https://127.0.0.1:${server.address.port}`);
  await enrolMachine({ layout: securityLayout(layout.configFolder), url, token, fingerprint: null });
});
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
  await rm(folder, { recursive: true, force: true });
});

/** In `days` days, until the condition holds. */
async function keepUntil(days: number, holds: () => Promise<boolean>, told: string[] = []): Promise<void> {
  ahead = days * DAY_MS;
  const ending = new AbortController();
  const { clock, ...seams } = testSeams();
  // Its pauses are short, its calendar is ahead.
  const quick = { ...clock, now: () => Date.now() + ahead, sleep: () => sleep(20) };
  const log = { ...seams.log, error: (message: string) => void told.push(message) };
  const kept = keepSecurity(layout, { ...seams, log, clock: quick }, ending.signal);
  while (!(await holds())) await sleep(20);
  ending.abort();
  await kept;
}
const certificateNow = (): Promise<string> => readFile(securityLayout(layout.configFolder).certificate, 'utf8');

test('a certificate is renewed at two thirds of its life, and not before', async () => {
  const first = await certificateNow();
  let asked = 0;
  await keepUntil(58, async () => await Promise.resolve((asked += 1) > 20));
  expect(await certificateNow()).toBe(first);
  await keepUntil(61, async () => (await certificateNow()) !== first);
  expect((await site.authority.list()).filter((one) => one.machineId === machineId('m2')).length).toBeGreaterThan(1);
  expect(isDue({ notBefore: 0, notAfter: 90 }, 59)).toBe(false);
  expect(isDue({ notBefore: 0, notAfter: 90 }, 60)).toBe(true);
});

test('the revocation list and the configuration of the machine come by themselves', async () => {
  configuration = '{"machineId":"m2"}\n';
  await keepUntil(0, async () => (await readFile(layout.machineFile, 'utf8').catch(() => '')) === configuration);
  await site.machine('m3', ['proxy']);
  const older = await site.authority.revocations();
  await site.authority.revoke(machineId('m3'));
  const { revocations } = securityLayout(layout.configFolder);
  const newest = await site.authority.revocations();
  await keepUntil(0, async () => (await readFile(revocations, 'utf8')) === newest);
  await writeFile(revocations, 'half a li');
  await keepUntil(0, async () => (await readFile(revocations, 'utf8')) === newest);
  const told: string[] = [];
  await writeFile(site.layout.revocations, older);
  await keepUntil(0, async () => await Promise.resolve(told.length > 0), told);
  expect([told[0], await readFile(revocations, 'utf8')]).toEqual([
    'a revocation list that is not newer is not taken',
    newest,
  ]);
});

test('what cannot be read when it begins is read later', async () => {
  const { certificate, enrolment, revocations } = securityLayout(layout.configFolder);
  for (const file of [certificate, enrolment]) {
    const good = await readFile(file);
    await rm(revocations);
    await writeFile(file, '{');
    let looks = 0;
    await keepUntil(0, async () => {
      looks += 1;
      if (looks === 5) await writeFile(file, good);
      return existsSync(revocations);
    });
    expect(looks).toBeGreaterThan(5);
  }
});
