import { expect, test } from 'vitest';
import { refusal } from '../../tests/fixtures/site.ts';
import type { Problem } from './problems.ts';
import { parseSite } from './parse-site.ts';
import { diffSites } from '../../schema/domain/site-changes.ts';
import { parseAddress } from './security-shape.ts';

const small = `site: lab
machine: m1
hosts: [{ name: h, provider: simulated, machine: m3, vms: [{ name: web, disks: [{ name: d0, size: 1GiB }] }] }]
proxies: [{ name: p1 }, { name: p2, machine: m2 }]
repositories: [{ name: main, folder: /backups, listen: "10.0.0.1:7950" }]
jobs: [{ name: nightly, vms: [web], repository: main }]
`;
const problemsIn = (more: string): string[] =>
  (refusal(small + more).details['problems'] as Problem[]).map(({ path, message }) => `${path}: ${message}`);

test('things are on the machines that they say, the others on that of the stack, which comes first', () => {
  const { machines } = parseSite(
    `${small}temporal: { address: "t.example.org:7233", tls: true }\nenrolment: { listen: "[::1]:7944" }\n`,
    'f',
  );
  const picture = machines.map(({ machineId, hosts, proxies, repositories }) => [
    machineId,
    hosts.map(({ hostId }) => hostId),
    proxies.map(({ proxyId }) => proxyId),
    repositories.map(({ listen }) => listen),
  ]);
  expect(picture).toEqual([
    ['m1', [], ['p1'], [{ host: '10.0.0.1', port: 7950 }]],
    ['m3', ['h'], [], []],
    ['m2', [], ['p2'], []],
  ]);
  const temporal = { address: 't.example.org:7233', tls: true };
  expect(machines.map((machine) => machine.temporal)).toEqual([undefined, temporal, temporal]);
  expect(machines.map((machine) => machine.enrolment)).toEqual([{ host: '::1', port: 7944 }, undefined, undefined]);
  // As it comes out of a machine's file again.
  expect(JSON.parse(JSON.stringify(machines))).toEqual(machines.map((machine) => structuredClone(machine)));
});

test('what changes of a machine’s trust and ways is named by itself', () => {
  const changesTo = (before: string, after: string): string[] =>
    diffSites(parseSite(small + before, 'f'), parseSite(small + after, 'f')).map(
      ({ change, kind, id }) => `${change} ${kind} ${id}`,
    );
  const temporal = (port: number): string => `temporal: { address: "t.example.org:${port}" }\n`;
  const enrolment = 'enrolment: { listen: "10.0.0.1:7944" }\n';
  expect(changesTo('', temporal(7233))).toEqual(['added temporal m3', 'added temporal m2']);
  expect(changesTo(temporal(7233), temporal(7234))).toEqual(['changed temporal m3', 'changed temporal m2']);
  expect(changesTo(temporal(7233), enrolment + temporal(7233))).toEqual(['added enrolment m1']);
  expect(changesTo(enrolment, '')).toEqual(['removed enrolment m1']);
});

test('a PKI of the operator’s is the same for every machine; what is wrong in it is named', () => {
  const security = `security:
  authority: /etc/ca.pem
  certificate: /etc/m.pem
  key: /etc/m.key
  machines: [{ name: m1.example.org, machine: m1, roles: [repository] }, { name: "urn:m2", machine: m2, roles: [proxy, host] }]
`;
  const { machines } = parseSite(small + security, 'f');
  expect(machines.map((machine) => machine.security?.machines.length)).toEqual([2, 2, 2]);
  expect(machines[0]!.security).toMatchObject({
    authority: '/etc/ca.pem',
    machines: [{ machineId: 'm1' }, { roles: ['proxy', 'host'] }],
  });
  expect(problemsIn(security.replace('[repository]', '[king]'))[0]).toMatch(
    /roles.*one of control, host, proxy, repository/,
  );
  expect(problemsIn(security.replace('/etc/m.key', 'm.key'))[0]).toMatch(/security.key: expected an absolute path/);
  expect(problemsIn(security.replace('[repository]', '[]'))[0]).toContain('at least one role');
});

test('addresses have a host and a port, and nothing else', () => {
  expect(parseAddress('[fe80::1]:1')).toEqual({ host: 'fe80::1', port: 1 });
  for (const text of ['7950', 'a:0', 'a:65536', ':1', 'a b:1', 'http://a:1', '-a:1', 'a:1:2', '[x]:1', 5, null])
    expect([text, parseAddress(text)]).toEqual([text, null]);
  expect(problemsIn('temporal: { address: here, tls: maybe }\n')).toEqual([
    expect.stringContaining('temporal.address: expected an address') as string,
    expect.stringContaining('temporal.tls: expected true, or a mapping') as string,
  ]);
});
