import { expect, test } from 'vitest';
import { parseSite } from '../engines/site/parse-site.ts';
import { checkOtherMachines } from './other-machines.ts';

const warningsOf = (temporal: string): string[] =>
  checkOtherMachines(
    parseSite(`site: lab\nmachine: m1\nproxies: [{ name: p1 }, { name: p2, machine: m2 }]\n${temporal}`, 'f'),
  );

/** Two machines, an image host on each; `proxies` by name and machine, `of` those the job names. */
const readersOf = (proxies: [string, string][], of: string[]): string[] => {
  const vm = (name: string): string =>
    `vms: [{ name: ${name}, disks: [{ name: d0, file: /${name}.raw, format: raw }] }]`;
  const text = `
site: lab
machine: m1
temporal: { address: "127.0.0.1:7233" }
hosts:
  - { name: h1, machine: m1, provider: image, ${vm('a')} }
  - { name: h2, machine: m2, provider: image, ${vm('b')} }
  - { name: h3, machine: m2, provider: simulated, vms: [{ name: c, disks: [{ name: d0, size: 1MiB, seed: 1 }] }] }
proxies: [${proxies.map(([name, machine]) => `{ name: ${name}, machine: ${machine} }`).join(', ')}]
repositories: [{ name: main, folder: /backups }]
jobs: [{ name: nightly, vms: [a, b, c], repository: main, consistency: none, proxies: [${of.join(', ')}] }]
`;
  return checkOtherMachines(parseSite(text, 'f'));
};

test('a job is warned of whose proxies cannot read a host', () => {
  const both: [string, string][] = [
    ['p1', 'm1'],
    ['p2', 'm2'],
  ];
  const cannot = (machine: string, host: string): string =>
    `job nightly: no proxy of it is on machine ${machine}, and none of another machine can read host ${host} (image): its VMs cannot be backed up`;
  expect(readersOf(both, [])).toEqual([]);
  expect(readersOf(both, ['p1', 'p2'])).toEqual([]);
  expect(readersOf(both, ['p1'])).toEqual([cannot('m2', 'h2')]);
  expect(readersOf(both, ['p2'])).toEqual([cannot('m1', 'h1')]);
  expect(readersOf([['p1', 'm1']], [])).toEqual([cannot('m2', 'h2')]);
});

test('other machines are warned of that do not know the way to Temporal, or go it in the clear', () => {
  expect(warningsOf('')).toEqual(['machine m2 is not told where Temporal is: `temporal` is missing']);
  expect(warningsOf('temporal: { address: "10.0.0.1:7233" }')).toEqual([
    'machine m2 reaches Temporal at 10.0.0.1:7233 without TLS, and without proving who it is',
  ]);
  expect(warningsOf('temporal: { address: "10.0.0.1:7233", tls: true }')).toEqual([]);
  expect(warningsOf('temporal: { address: "127.0.0.1:7233" }')).toEqual([]);
});
