/** What is said of a mistake in site.yaml: its place, what is expected, what is found; and of many of them. */
import { describe, expect, it, test } from 'vitest';
import { edited, problemsOf, refusal, small } from '../../tests/fixtures/site.ts';

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
  it('a job of more VMs than a session can take', () => {
    const jobOf = (count: number): string => edited('vms: [files]', `vms: [${Array(count).fill('files').join(', ')}]`);
    expect(refusal(jobOf(1001)).message).toContain(
      'site.yaml:12:10: jobs[0].vms: expected a list of at most 1000 VMs, all that a session can take (split the job into several), found a list of 1001',
    );
    expect(refusal(jobOf(1000)).message).not.toContain('at most 1000');
  });

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

  it.each(['Europe/Berlim', '+02:00', '-05', 'Z'])('a time zone: %s', (zone) => {
    expect(refusal(edited('site: lab', `site: lab\ntimeZone: ${JSON.stringify(zone)}`)).message).toBe(
      `site.yaml:2:11: timeZone: expected the name of a time zone, like UTC or Europe/Berlin (no offset), found "${zone}"`,
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
