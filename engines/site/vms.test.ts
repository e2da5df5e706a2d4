/** VMs of several hosts: what belongs to one of them alone, and how jobs name them. */
import { expect, test } from 'vitest';
import { problemsOf, refusal } from '../../tests/fixtures/site.ts';
import { parseSite } from './parse-site.ts';

const qemu = (vms: string): string => `site: lab
hosts:
  - { name: h1, provider: qemu, scratch: { folder: /scratch }, vms: [${vms}] }
  - { name: h2, provider: qemu, scratch: { folder: /scratch }, vms: [{ name: b, qmp: /run/b.qmp, agent: /run/b.agent }] }
`;

test('sockets and UUIDs belong to one VM each, also over hosts', () => {
  const uuid = '3F0C1E8A-5d1b-4c7e-9a54-0b8f6d1c2e77';
  const said = problemsOf(
    qemu(`{ name: a, qmp: /run//b.agent, uuid: ${uuid} }, { name: c, qmp: /run/c, uuid: ${uuid.toLowerCase()} }`),
  );
  expect(said.map(({ line, path, message }) => [line, path, message])).toEqual([
    [3, 'hosts[0].vms[1].uuid', `"${uuid.toLowerCase()}" stands at hosts[0].vms[0].uuid already`],
    [4, 'hosts[1].vms[0].agent', '"/run/b.agent" stands at hosts[0].vms[0].qmp already'],
  ]);
});

test('a socket path has room for 107 bytes, counted in bytes', () => {
  const vm = (length: number): string => `{ name: a, qmp: /${'ü'.repeat((length - 2) / 2)}x }`;
  expect(parseSite(qemu(vm(106)), 'site.yaml').machines[0]!.hosts).toHaveLength(2);
  expect(refusal(qemu(vm(108))).message).toContain('of at most 107 bytes (the limit of Unix sockets), found "/üü');
});

test('a VM of one name on two hosts has to be named with its host', () => {
  const jobs = (vm: string): string => `${qemu('{ name: b, qmp: /run/a }')}proxies: [{ name: p }]
repositories: [{ name: r, folder: /r }]
jobs: [{ name: j, vms: [${vm}], repository: r }]
`;
  expect(refusal(jobs('b')).message).toBe(
    'site.yaml:7:25: jobs[0].vms[0]: several hosts have a VM "b": write host/name',
  );
  const {
    jobs: [job],
  } = parseSite(jobs('h2/b, h1/b'), 'site.yaml');
  expect(job!.vms.map((vm) => vm.hostId)).toEqual(['h2', 'h1']);
  // One of them can be frozen.
  expect(job!.consistency).toBe('prefer');
});
