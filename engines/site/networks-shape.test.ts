import { describe, expect, it } from 'vitest';
import { diffSites } from '../../schema/domain/site-changes.ts';
import { edited, example, problemsOf, small } from '../../tests/fixtures/site.ts';
import { parseSite } from './parse-site.ts';

describe('networks and limits', () => {
  const working = ['monday', 'tuesday', 'wednesday', 'thursday', 'friday'];
  it('are read as the page says', () => {
    const [machine] = parseSite(example, 'site.yaml').machines;
    expect(machine!.networks).toEqual({
      timeZone: 'Europe/Berlin',
      preferred: ['10.20.0.0/16'],
      throttle: [
        {
          name: 'office',
          from: '10.1.0.0/16',
          to: '10.20.0.0/16',
          rateBytesPerSecond: 12_500_000,
          hours: [{ days: working, fromMinute: 420, toMinute: 1140 }],
          restores: false,
          local: false,
        },
      ],
    });
    expect(machine!.workers).toEqual({ proxy: { memoryBytes: 2 * 2 ** 30, cpus: 2, nice: 10 } });
    for (const key of ['networks', 'workers'])
      expect(parseSite(small, 'site.yaml').machines[0]).not.toHaveProperty(key);
  });

  it('a change of them is a change of the machine, or of the repository', () => {
    const before = parseSite(small, 'site.yaml');
    const ruled = parseSite(`${small}networks: { preferred: [10.0.0.0/8] }\n`, 'site.yaml');
    expect(diffSites(before, ruled)).toEqual([{ kind: 'machine', id: 'localhost', change: 'changed' }]);
    const limited = parseSite(edited('folder: /backups', 'folder: /backups, limits: { write: 1MiB/s }'), 'site.yaml');
    expect(limited.machines[0]!.repositories[0]!.limits).toMatchObject({ readBytesPerSecond: null });
    expect(diffSites(before, limited)).toEqual([{ kind: 'repository', id: 'main', change: 'changed' }]);
  });

  const office = 'name: office, from: 10.0.0.0/8, to: 10.1.0.0/16';
  it.each([
    ['{ preferred: [10.0.0.1/8] }', 'networks.preferred[0]', 'expected a network, like 10.1.0.0/16'],
    [`{ throttle: [{ ${office}, rate: 100 }] }`, 'networks.throttle[0].rate', 'expected a rate of at least 64KiB/s'],
    [`{ throttle: [{ ${office}, rate: 1KiB/s }] }`, 'networks.throttle[0].rate', 'expected a rate of at least 64KiB/s'],
    [
      `{ throttle: [{ ${office}, rate: 1MiB/s, hours: [{ from: "24:30" }] }] }`,
      'networks.throttle[0].hours[0].from',
      'expected a time of day',
    ],
    [
      `{ throttle: [{ ${office}, rate: 1MiB/s }, { ${office}, rate: 2MiB/s }] }`,
      'networks.throttle[1].name',
      'stands at',
    ],
  ])('%s is refused', (networks, at, message) => {
    const problems = problemsOf(`${small}networks: ${networks}\n`);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatchObject({ path: at, message: expect.stringContaining(message) as string });
  });
});
