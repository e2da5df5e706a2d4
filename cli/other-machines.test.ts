import { expect, test } from 'vitest';
import { parseSite } from '../engines/site/parse-site.ts';
import { checkOtherMachines } from './other-machines.ts';

const warningsOf = (temporal: string): string[] =>
  checkOtherMachines(
    parseSite(`site: lab\nmachine: m1\nproxies: [{ name: p1 }, { name: p2, machine: m2 }]\n${temporal}`, 'f'),
  );

test('other machines are warned of that do not know the way to Temporal, or go it in the clear', () => {
  expect(warningsOf('')).toEqual(['machine m2 is not told where Temporal is: `temporal` is missing']);
  expect(warningsOf('temporal: { address: "10.0.0.1:7233" }')).toEqual([
    'machine m2 reaches Temporal at 10.0.0.1:7233 without TLS, and without proving who it is',
  ]);
  expect(warningsOf('temporal: { address: "10.0.0.1:7233", tls: true }')).toEqual([]);
  expect(warningsOf('temporal: { address: "127.0.0.1:7233" }')).toEqual([]);
});
