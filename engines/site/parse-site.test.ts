import { describe, expect, it, test } from 'vitest';
import type { SiteConfig } from '../../schema/domain/configuration.ts';
import { diskKey, hostId, vmIdOf } from '../../schema/domain/ids.ts';
import { diffSites } from '../../schema/domain/site-changes.ts';
import { edited, example, small } from '../../tests/fixtures/site.ts';
import { parseSite } from './parse-site.ts';

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

test.each([
  ['europe/berlin', 'Europe/Berlin'],
  ['utc', 'UTC'],
  ['Etc/UTC', 'UTC'],
])('the time zone %s is %s, as Temporal spells it, wherever one is used', (written, zone) => {
  const text = `${small}    retention: { count: 5 }\n`.replace('site: lab', `$&\ntimeZone: ${written}`);
  const { machines, jobs } = parseSite(text, 'site.yaml');
  expect(machines[0]!.repositories[0]!.maintenance!.when).toEqual({ at: '03:30', timeZone: zone });
  expect(jobs[0]!.retention!.timeZone).toBe(zone);
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

test('what is read can be written to machine.json and back', () => {
  const site: SiteConfig = parseSite(example, 'site.yaml');
  expect(JSON.parse(JSON.stringify(site))).toEqual(site);
  expect(site.machines[0]!.hosts[1]!.vms[0]).toHaveProperty('disks.0.diskKey', diskKey('d0'));
});
