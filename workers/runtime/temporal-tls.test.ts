import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { stackLayout, type StackLayout } from '../../engines/stack/layout.ts';
import { createTestSite, type TestSite } from '../../tests/fixtures/security.ts';
import { readTemporalTls, untilTemporalTlsChanges } from './temporal-tls.ts';

let folder: string;
let site: TestSite;
let layout: StackLayout;
let pki: { authority: string; certificate: string; key: string };

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'td-tls-'));
  site = await createTestSite(folder);
  layout = stackLayout(path.join(folder, 'm2'));
  await mkdir(layout.configFolder, { recursive: true });
  pki = {
    authority: path.join(folder, 'ca.pem'),
    certificate: path.join(folder, 'machine.pem'),
    key: path.join(folder, 'machine.key'),
  };
  await writeFile(pki.authority, await readFile(site.layout.authority));
  await put(await readFile(site.layout.certificate, 'utf8'));
  const security = { ...pki, machines: [] };
  const machine = { site: 'lab', machineId: 'm2', hosts: [], proxies: [], repositories: [], security };
  await writeFile(layout.machineFile, JSON.stringify(machine));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Key and certificate apart, as an operator's PKI has them. */
async function put(both: string): Promise<void> {
  const at = both.indexOf('-----BEGIN CERTIFICATE');
  await writeFile(pki.key, both.slice(0, at));
  await writeFile(pki.certificate, both.slice(at));
}

test('the machine’s own certificate is that of the operator’s PKI, where the site has one', async () => {
  const { serverRootCACertificate, clientCertPair } = await readTemporalTls(true, layout.configFolder);
  expect(String(serverRootCACertificate)).toBe(await readFile(pki.authority, 'utf8'));
  expect(String(clientCertPair.crt)).toBe(await readFile(pki.certificate, 'utf8'));
  expect(String(clientCertPair.key)).toBe(await readFile(pki.key, 'utf8'));
});

test('a change of the files is told once they can be used together, and not before', async () => {
  const next = await site.machine('m2', ['proxy']);
  const both = await readFile(next.layout.certificate, 'utf8');
  const seen = { looks: 0 };
  let isTold = false;
  const clock = { sleep: () => sleep(((seen.looks += 1), 5)) };
  const told = untilTemporalTlsChanges(true, layout.configFolder, clock, new AbortController().signal).then(
    () => (isTold = true),
  );
  const untilLooked = async (): Promise<void> => {
    const enough = seen.looks + 3;
    while (seen.looks < enough) await sleep(5);
  };
  await untilLooked();
  await writeFile(pki.certificate, both.slice(both.indexOf('-----BEGIN CERTIFICATE')));
  await untilLooked();
  await rm(pki.key);
  await untilLooked();
  expect(isTold).toBe(false);
  await put(both);
  await told;
  const ending = new AbortController();
  const other = untilTemporalTlsChanges({ key: '/nowhere' }, layout.configFolder, clock, ending.signal);
  await untilLooked();
  ending.abort();
  await other;
});
