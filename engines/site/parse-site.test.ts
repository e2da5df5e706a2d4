import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it, test } from 'vitest';
import type { SiteConfig } from '../../schema/domain/configuration.ts';
import { diskKey, hostId, vmIdOf } from '../../schema/domain/ids.ts';
import { diffSites } from '../../schema/domain/site-changes.ts';
import { refusal } from '../../tests/fixtures/site.ts';
import { parseSite } from './parse-site.ts';
import type { Problem } from './problems.ts';

const page = readFileSync(path.join(import.meta.dirname, 'site-yaml.md'), 'utf8');
const example = /```yaml\n([^]*?)```/.exec(page)![1]!;

const small = `site: lab
hosts:
  - name: images
    provider: image
    vms:
      - name: files
        disks: [{ name: d0, file: /srv/files.raw, format: raw }]
proxies: [{ name: p1 }]
repositories: [{ name: main, folder: /backups }]
jobs:
  - name: nightly
    vms: [files]
    repository: main
`;
const edited = (from: string, to: string): string => {
  expect(small).toContain(from);
  return small.replace(from, to);
};

const problemsOf = (text: string): Problem[] => refusal(text).details['problems'] as Problem[];

describe('the example of the page', () => {
  it('is read as it says', () => {
    const { site, machines, jobs } = parseSite(example, 'site.yaml');
    const [machine] = machines;
    expect(site).toBe('lab');
    expect(machine!.machineId).toBe('backup-1');
    expect(machine!.hosts[0]).toEqual({
      hostId: 'kvm-1',
      slots: 4,
      limits: { readBytesPerSecond: 300 * 2 ** 20, writeBytesPerSecond: 200 * 2 ** 20, latencyMs: 60 },
      datastores: [{ name: 'ssd', folder: '/vms', limits: { readBytesPerSecond: null, latencyMs: 20 } }],
      provider: 'qemu',
      scratch: { folder: '/var/lib/tidemark/scratch', maxBytes: 20 * 2 ** 30 },
      vms: [
        {
          name: 'web',
          vmId: '3f0c1e8a-5d1b-4c7e-9a54-0b8f6d1c2e77',
          qmp: '/run/vms/web.qmp',
          agent: '/run/vms/web.agent',
          disks: [
            { diskKey: 'root', file: '/vms/web-root.qcow2', format: 'qcow2' },
            { diskKey: 'data', file: '/vms/web-data.qcow2', format: 'qcow2' },
          ],
        },
      ],
    });
    expect(machine!.hosts[1]!.vms.map((vm) => 'disks' in vm && vm.disks)).toEqual([
      [{ diskKey: 'd0', file: '/srv/images/files.qcow2', format: 'qcow2', allowBacking: false }],
      [{ diskKey: 'd0', file: '/srv/images/archive.qcow2', format: 'qcow2', allowBacking: true }],
    ]);
    const folders = { restoreFolders: ['/restores'] };
    expect(machine!.proxies).toEqual([
      { proxyId: 'proxy-1', slots: 2, lanes: 2, readDepth: 1, restoreDepth: 1, ...folders },
    ]);
    const encryption = { passphraseFile: '/etc/tidemark/main.passphrase' };
    expect(machine!.repositories).toEqual([
      {
        repositoryId: 'main',
        listen: { host: '10.0.0.1', port: 7950 },
        folder: '/backups/main',
        slots: 4,
        lanes: 2,
        lockDays: 30,
        limits: { readBytesPerSecond: 200 * 2 ** 20, writeBytesPerSecond: 100 * 2 ** 20 },
        encryption,
        maintenance: {
          when: { at: '03:30', timeZone: 'Europe/Berlin' },
          verify: { maxBytes: null, maxMs: 3_600_000 },
        },
        alarms: { freePercent: 5, daysUntilFull: 14 },
      },
    ]);
    expect(jobs[0]).toEqual({
      jobId: 'nightly',
      vms: [
        { hostId: 'kvm-1', name: 'web', vmId: '3f0c1e8a-5d1b-4c7e-9a54-0b8f6d1c2e77', excludeDisks: [] },
        { hostId: 'images', name: 'files', vmId: vmIdOf(hostId('images'), 'files'), excludeDisks: [] },
      ],
      repositoryId: 'main',
      proxies: ['proxy-1'],
      consistency: 'prefer',
      compression: 'balanced',
      blockSize: 2 ** 20,
      maxParallelVms: 4,
      hostWaitMs: 900_000,
      scripts: {
        preFreeze: { path: '/usr/local/sbin/before-backup', args: [], timeoutMs: 120_000 },
        postThaw: { path: '/usr/local/sbin/after-backup', args: [], timeoutMs: 300_000 },
        success: { path: '/usr/local/sbin/truncate-logs', args: ['--older-than-backup'], timeoutMs: 600_000 },
      },
      retention: {
        count: 7,
        days: 14,
        weekly: { keep: 4, weekday: 'sunday' },
        monthly: { keep: 12 },
        yearly: { keep: 3, month: 'january' },
        minimum: 3,
        deletedVmDays: 90,
        timeZone: 'Europe/Berlin',
      },
    });
    expect(jobs[1]).not.toHaveProperty('retention');
    expect(jobs[1]).toMatchObject({ jobId: 'archives', consistency: 'none', proxies: [], scripts: { success: null } });
  });

  it('gives the defaults it names: without those keys it is the same site', () => {
    const defaults =
      /^ *(?:slots: 4|slots: 2|lanes: 2|proxies: \[proxy-1\]|compression: balanced|blockSize: 1MiB|maxParallelVms: 4|hostWait: 15m|consistency: prefer|maintenance:|at: "03:30"|verify: \{ maxTime: 1h \}|alarms: \{ freePercent: 5, daysUntilFull: 14 \}) .*\n(?: +#.*\n)?/gm;
    const shorter = example.replace(defaults, '');
    expect(shorter.length).toBeLessThan(example.length - 600);
    const changes = diffSites(parseSite(example, 'a'), parseSite(shorter, 'b'));
    // Which proxies may be used is told apart from "any".
    expect(changes).toEqual([{ kind: 'job', id: 'nightly', change: 'changed' }]);
  });
});

test('maintenance may be left out, and be asked for at intervals', () => {
  const repositoryOf = (part: string) =>
    parseSite(edited('folder: /backups }', `folder: /backups, ${part} }`), 'site.yaml').machines[0]!.repositories[0];
  expect(repositoryOf('maintenance: false')).not.toHaveProperty('maintenance');
  expect(repositoryOf('maintenance: { every: 12h, verify: { maxBytes: 1GiB } }')!.maintenance).toEqual({
    when: { everyMs: 12 * 3_600_000 },
    verify: { maxBytes: 2 ** 30, maxMs: null },
  });
});

test('names what the machine is called, and gives VMs ids that stay', () => {
  const site = parseSite(small, 'site.yaml', 'box');
  expect(site.machines[0]!.machineId).toBe('box');
  const { vmId } = site.machines[0]!.hosts[0]!.vms[0]!;
  expect(vmId).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(vmId).toBe('927fa9c0-d0bb-8d5b-be59-28592e3f1d2a');
  const other = edited('name: images', 'name: images-2');
  expect(parseSite(other, 'site.yaml').machines[0]!.hosts[0]!.vms[0]!.vmId).not.toBe(vmId);
});

describe('one mistake', () => {
  const cases: [string, string, string][] = [
    [
      'an unknown key',
      'proxies: [{ name: p1, slotz: 3 }]',
      '8:23: proxies[0].slotz: this key is not known here (name, machine, slots, lanes, readDepth, restoreDepth, restoreFolders); did you mean "slots"?',
    ],
    [
      'a wrong type',
      'proxies: [{ name: p1, slots: many }]',
      '8:30: proxies[0].slots: expected a whole number from 1 to 256, found "many"',
    ],
    [
      'out of range',
      'proxies: [{ name: p1, slots: 0 }]',
      '8:30: proxies[0].slots: expected a whole number from 1 to 256, found the number 0',
    ],
    ['not a list', 'proxies: { name: p1 }', '8:10: proxies: expected a list of at most 256 proxies, found a mapping'],
    ['nothing', 'proxies:', '8:9: proxies: expected a list of at most 256 proxies, found nothing'],
    [
      'a name missing',
      'proxies: [{ slots: 1 }]',
      '8:11: proxies[0].name: expected a name: 1 to 32 of a-z, 0-9 and "-", no "-" at its ends, found nothing',
    ],
    [
      'upper case',
      'proxies: [{ name: P1 }]',
      '8:19: proxies[0].name: expected a name: 1 to 32 of a-z, 0-9 and "-", no "-" at its ends, found "P1"',
    ],
    [
      'a relative folder',
      'proxies: [{ name: p1, restoreFolders: [here] }]',
      '8:40: proxies[0].restoreFolders[0]: expected an absolute path without "..", found "here"',
    ],
    [
      'a folder that goes up',
      'proxies: [{ name: p1, restoreFolders: [/a/../b] }]',
      '8:40: proxies[0].restoreFolders[0]: expected an absolute path without "..", found "/a/../b"',
    ],
    [
      'a name twice',
      'proxies: [{ name: p1 }, { name: p1 }]',
      '8:33: proxies[1].name: "p1" stands at proxies[0].name already',
    ],
    [
      'restores into a repository',
      'proxies: [{ name: p1, restoreFolders: [/backups/x/] }]',
      `8:40: proxies[0].restoreFolders[0]: expected a folder apart from the repository's at repositories[0].folder, found "/backups/x"`,
    ],
    ['no proxy at all', 'proxies: []', '11:5: jobs[0]: the site has no proxies, so that nothing could read the disks'],
  ];
  it.each(cases)('%s', (_what, line, said) => {
    expect(refusal(edited('proxies: [{ name: p1 }]', line)).message).toBe(`site.yaml:${said}`);
  });

  const repositoryCases: [string, string, string][] = [
    [
      'a time of day that is none',
      'maintenance: { at: "3:30" }',
      '9:67: repositories[0].maintenance.at: expected a time of day from "00:00" to "23:59", found "3:30"',
    ],
    [
      'a time and an interval',
      'maintenance: { at: 03:30, every: 2h }',
      '9:61: repositories[0].maintenance: expected either at or every, not both, found a mapping',
    ],
    [
      'a check without bounds',
      'maintenance: { verify: {} }',
      '9:71: repositories[0].maintenance.verify: expected maxTime, maxBytes or both, found a mapping',
    ],
    [
      'nothing behind the key',
      'maintenance: ',
      '9:62: repositories[0].maintenance: expected a mapping with at or every, and verify; or false, found nothing',
    ],
    [
      'too many percent',
      'alarms: { freePercent: 100 }',
      '9:71: repositories[0].alarms.freePercent: expected a whole number from 0 to 99, found the number 100',
    ],
  ];
  it.each(repositoryCases)('%s', (_what, part, said) => {
    expect(refusal(edited('folder: /backups }', `folder: /backups, ${part} }`)).message).toBe(`site.yaml:${said}`);
  });

  const jobCases: [string, string, string][] = [
    [
      'a repository that is not there',
      'repository: mian',
      '13:17: jobs[0].repository: expected the name of a repository (main), found "mian"; did you mean "main"?',
    ],
    [
      'a proxy that is not there',
      'repository: main\n    proxies: [p2]',
      '14:15: jobs[0].proxies[0]: expected the name of a proxy (p1), found "p2"; did you mean "p1"?',
    ],
    [
      'a codec',
      'repository: main\n    compression: blanced',
      '14:18: jobs[0].compression: expected one of none, fast, balanced, small, auto, found "blanced"; did you mean "balanced"?',
    ],
    [
      'a block size',
      'repository: main\n    blockSize: 2MiB',
      '14:16: jobs[0].blockSize: expected one of 256KiB, 512KiB, 1MiB, 4MiB, found "2MiB"',
    ],
    [
      'a duration without unit',
      'repository: main\n    hostWait: 15',
      '14:15: jobs[0].hostWait: expected a duration from 0s to 24h, like 90s, 15m or 1h30m, found the number 15',
    ],
    [
      'frozen without an agent',
      'repository: main\n    consistency: require',
      '12:11: jobs[0].vms[0]: the job has consistency require, but this VM has no guest agent',
    ],
    ['a key twice', 'repository: main\n    repository: main', '14:5: the key "repository" stands twice in one mapping'],
  ];
  it.each(jobCases)('of a job: %s', (_what, line, said) => {
    expect(refusal(edited('repository: main', line)).message).toBe(`site.yaml:${said}`);
  });

  const retentionCases: [string, string, string][] = [
    [
      'without a rule',
      '{ minimum: 5 }',
      '14:16: jobs[0].retention: expected at least one of count, days, weekly, monthly, yearly, found a mapping',
    ],
    [
      'nothing',
      '',
      '14:16: jobs[0].retention: expected a mapping with count, days, weekly, monthly, yearly and more, found nothing',
    ],
    [
      'none at all',
      '{ count: 0 }',
      '14:25: jobs[0].retention.count: expected a whole number from 1 to 100000, found the number 0',
    ],
    [
      'an unknown key',
      '{ count: 7, day: 7 }',
      '14:28: jobs[0].retention.day: this key is not known here (count, days, weekly, monthly, yearly, minimum, deletedVmDays); did you mean "days"?',
    ],
    [
      'a week of another kind',
      '{ weekly: often }',
      '14:26: jobs[0].retention.weekly.keep: expected a whole number from 1 to 5200, found "often"',
    ],
    [
      'a list of weeks',
      '{ weekly: [4] }',
      '14:26: jobs[0].retention.weekly: expected a number, or a mapping with keep and weekday, found a list of 1',
    ],
    [
      'a weekday',
      '{ weekly: { keep: 4, weekday: sundae } }',
      '14:46: jobs[0].retention.weekly.weekday: expected one of monday, tuesday, wednesday, thursday, friday, saturday, sunday, found "sundae"; did you mean "sunday"?',
    ],
    [
      'a month',
      '{ yearly: { keep: 4, month: 1 } }',
      '14:44: jobs[0].retention.yearly.month: expected one of january, february, march, april, may, june, july, august, september, october, november, december, found the number 1',
    ],
  ];
  it.each(retentionCases)('of a retention: %s', (_what, value, said) => {
    const line = `repository: main\n    retention: ${value}`;
    expect(refusal(edited('repository: main', line)).message).toBe(`site.yaml:${said}`);
  });

  const encryptionCases: [string, string, string][] = [
    [
      'two secrets',
      '{ keyFile: /k, passphraseEnvironment: P }',
      '9:60: repositories[0].encryption: expected exactly one of passphraseFile, keyFile, passphraseEnvironment, found a mapping',
    ],
    [
      'no secret',
      '{}',
      '9:60: repositories[0].encryption: expected exactly one of passphraseFile, keyFile, passphraseEnvironment, found a mapping',
    ],
    [
      'the secret itself',
      '{ keyFile: /k, passphrase: very secret }',
      '9:75: repositories[0].encryption.passphrase: this key is not known here (passphraseFile, keyFile, passphraseEnvironment); did you mean "passphraseFile"?',
    ],
    [
      'a key beside what it opens',
      '{ keyFile: /backups/key }',
      `9:71: repositories[0].encryption.keyFile: expected a file outside of the repository's at repositories[0].folder, found "/backups/key"`,
    ],
    [
      'no name of a variable',
      '{ passphraseEnvironment: $P }',
      '9:85: repositories[0].encryption.passphraseEnvironment: expected the name of an environment variable, found "$P"',
    ],
  ];
  it.each(encryptionCases)('of an encryption: %s', (_what, value, said) => {
    const text = edited('folder: /backups }', `folder: /backups, encryption: ${value} }`);
    expect(refusal(text).message).toBe(`site.yaml:${said}`);
  });

  it('a time zone', () => {
    expect(refusal(edited('site: lab', 'site: lab\ntimeZone: Europe/Berlim')).message).toBe(
      'site.yaml:2:11: timeZone: expected the name of a time zone, like UTC or Europe/Berlin, found "Europe/Berlim"',
    );
  });

  const vmCases: [string, string, string][] = [
    [
      'not there',
      'fils',
      '12:11: jobs[0].vms[0]: expected the name of a VM (images/files, files), found "fils"; did you mean "files"?',
    ],
    ['twice', 'files, images/files', '12:18: jobs[0].vms[1]: this VM stands at jobs[0].vms[0] already'],
    [
      'a disk it has not',
      '{ vm: files, excludeDisks: [d1] }',
      '12:39: jobs[0].vms[0].excludeDisks[0]: expected the name of a disk of this VM (d0), found "d1"; did you mean "d0"?',
    ],
    ['none', '', '12:10: jobs[0].vms: expected at least one VM, found a list of 0'],
    [
      'a number',
      '7',
      '12:11: jobs[0].vms[0]: expected a VM: its name, host/name, or a mapping with vm and excludeDisks, found the number 7',
    ],
  ];
  it.each(vmCases)('of a job: a VM, %s', (_what, vms, said) => {
    expect(refusal(edited('vms: [files]', `vms: [${vms}]`)).message).toBe(`site.yaml:${said}`);
  });

  it('a provider that is not one', () => {
    const said = refusal(edited('provider: image', 'provider: images')).message;
    expect(said).toBe(
      'site.yaml:4:15: hosts[0].provider: expected one of qemu, image, simulated, found "images"; did you mean "image"?',
    );
  });
});

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

test.each([
  ['{ count: 5 }', { count: 5, days: null, minimum: 3, deletedVmDays: null, timeZone: 'UTC' }],
  ['{ days: 30 }', { count: null, days: 30, weekly: null, monthly: null, yearly: null }],
  ['{ weekly: 4 }', { count: null, days: 14, weekly: { keep: 4, weekday: 'monday' } }],
  [
    '{ count: 1, yearly: 2, monthly: 6 }',
    { count: 1, days: null, monthly: { keep: 6 }, yearly: { keep: 2, month: 'january' } },
  ],
])('retention %s', (value, policy) => {
  const text = edited('repository: main', `repository: main\n    retention: ${value}`);
  expect(parseSite(text, 'site.yaml').jobs[0]!.retention).toMatchObject(policy);
});

test('all problems are told at once, in the order of the file, whatever their kind', () => {
  const text = small
    .replace('site: lab', 'site: laboratory')
    .replace('format: raw', 'format: vhd')
    .replace('proxies: [{ name: p1 }]', 'proxies: [{ name: p1 }, { name: p1, lanes: 0 }]')
    .replace('repository: main', 'repository: other');
  const error = refusal(text);
  expect(problemsOf(text).map(({ line, path }) => `${line} ${path}`)).toEqual([
    '1 site',
    '7 hosts[0].vms[0].disks[0].format',
    '8 proxies[1].name',
    '8 proxies[1].lanes',
    '13 jobs[0].repository',
  ]);
  expect(error.message).toMatch(/^5 problems in site\.yaml\n {2}site\.yaml:1:7: site: expected/);
  expect(error.message.split('\n')).toHaveLength(6);
});

test('of many problems 20 are shown, and the rest is counted', () => {
  const keys = Array.from({ length: 50 }, (_, i) => `key${i}: 1\n`).join('');
  const error = refusal(small + keys);
  expect(error.details['problems']).toHaveLength(20);
  expect(error.details['problemCount']).toBe(50);
  expect(error.message).toMatch(/^50 problems in site\.yaml\n[^]*\n {2}and 30 more$/);
});

test('what is read can be written to machine.json and back', () => {
  const site: SiteConfig = parseSite(example, 'site.yaml');
  expect(JSON.parse(JSON.stringify(site))).toEqual(site);
  expect(site.machines[0]!.hosts[1]!.vms[0]).toHaveProperty('disks.0.diskKey', diskKey('d0'));
});

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
