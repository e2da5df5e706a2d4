import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { listResources } from '../../schema/catalog/resources.ts';
import { createSession, planSessionVms } from '../../schema/catalog/sessions.ts';
import { loadSite } from '../../schema/catalog/site.ts';
import type { MachineConfig } from '../../schema/domain/configuration.ts';
import { repositoryId } from '../../schema/domain/ids.ts';
import { encodeRepositoryFile, newRepositoryFile } from '../../schema/repository/documents.ts';
import { recordTestPoint } from '../../tests/fixtures/cli/restore-points.ts';
import { startTestStack, type TestStack } from '../../tests/fixtures/cli/test-stack.ts';
import { machineNameOf } from '../machine-name.ts';

let stack: TestStack;
let folder: string;
let file: string;
beforeAll(async () => {
  stack = await startTestStack();
  folder = await mkdtemp(path.join(tmpdir(), 'tm-apply-'));
  file = path.join(folder, 'site.yaml');
});
afterAll(async () => {
  await stack.close();
  await rm(folder, { recursive: true, force: true });
});

const site = (jobs = 'jobs: [{ name: nightly, vms: [files], repository: main }]'): string => `site: lab
machine: box
hosts:
  - name: images
    provider: image
    vms: [{ name: files, disks: [{ name: d0, file: ${folder}/files.raw, format: raw }] }]
proxies: [{ name: p1, restoreFolders: [${folder}] }]
repositories: [{ name: main, folder: ${folder}/repository }]
${jobs}
`;
const machineText = (): Promise<string> => readFile(stack.layout.machineFile, 'utf8').catch(() => '');

test('shows what would change, changes it, and says what is not there', async () => {
  await writeFile(file, site());
  const dry = await stack.tidemark('apply', '-f', file, '--dry-run');
  expect(dry).toMatchObject({ exitCode: 0, errors: '' });
  expect(dry.output).toBe(
    '+ machine box\n+ host images\n+ vm images/files\n+ proxy p1\n+ repository main\n+ job nightly\n',
  );
  expect(await loadSite(stack.db)).toBeNull();
  expect(await machineText()).toBe('');

  const applied = await stack.tidemark('apply', '-f', file);
  expect(applied.exitCode).toBe(0);
  expect(applied.output).toContain('applied\n');
  expect(applied.errors).toBe(`warning: VM files, disk d0: there is no file ${folder}/files.raw\n`);
  const machine = JSON.parse(await machineText()) as MachineConfig;
  expect(machine).toMatchObject({ site: 'lab', machineId: 'box', repositories: [{ folder: `${folder}/repository` }] });
  expect((await loadSite(stack.db))!.machines[0]).toEqual(machine);
  expect((await stat(stack.layout.machineFile)).mode & 0o777).toBe(0o600);
  expect(await readdir(stack.layout.configFolder)).toEqual(['database-password', 'machine.json']);

  await writeFile(path.join(folder, 'files.raw'), 'x');
  const again = await stack.tidemark('apply', '-f', file, '--json');
  expect(again).toMatchObject({ exitCode: 0, errors: '' });
  expect(JSON.parse(again.output)).toEqual({ file, dryRun: false, applied: true, changes: [], warnings: [] });
});

test('a change of jobs alone leaves the machine file, and with it the workers, alone', async () => {
  await writeFile(file, site());
  await stack.tidemark('apply', '-f', file);
  const before = await stat(stack.layout.machineFile);
  await writeFile(file, site('jobs: [{ name: weekly, vms: [files], repository: main }]'));
  const { output } = await stack.tidemark('apply', '-f', file);
  expect(output).toBe('+ job weekly\n- job nightly\napplied\n');
  expect((await stat(stack.layout.machineFile)).mtimeMs).toBe(before.mtimeMs);
});

test('names what it changes of how machines trust and reach each other, without any of their things', async () => {
  await writeFile(file, site());
  await stack.tidemark('apply', '-f', file);
  const trust = (key: string): string =>
    `security: { authority: /pki/ca.pem, certificate: /pki/box.pem, key: ${key}, machines: [{ name: box.lab, machine: box, roles: [proxy] }] }
enrolment: { listen: "127.0.0.1:7944" }
`;
  await writeFile(file, site() + trust('/pki/a.key'));
  const added = await stack.tidemark('apply', '-f', file);
  expect(added.output).toBe('+ security box\n+ enrolment box\napplied\n');
  expect((await stack.tidemark('apply', '-f', file, '--dry-run')).output).toBe('nothing changes\n');
  await writeFile(file, site() + trust('/pki/b.key'));
  expect((await stack.tidemark('apply', '-f', file, '--dry-run')).output).toBe('~ security box\n');
});

test('a file with mistakes changes nothing, and tells all of them', async () => {
  await writeFile(file, site());
  await stack.tidemark('apply', '-f', file);
  const before = [await machineText(), await loadSite(stack.db)];
  await writeFile(
    file,
    site('jobs: [{ name: nightly, vms: [fils], repository: mian, hostwait: 5m }]').replace('box', 'box2'),
  );
  const { exitCode, output, errors } = await stack.tidemark('apply', '-f', file);
  expect({ exitCode, output }).toEqual({ exitCode: 2, output: '' });
  expect(errors.split('\n')).toEqual([
    'error: 3 problems in site.yaml',
    '  site.yaml:9:31: jobs[0].vms[0]: expected the name of a VM (images/files, files), found "fils"; did you mean "files"?',
    '  site.yaml:9:50: jobs[0].repository: expected the name of a repository (main), found "mian"; did you mean "main"?',
    expect.stringMatching(/^ {2}site\.yaml:9:56: jobs\[0\]\.hostwait: .*; did you mean "hostWait"\?$/),
    expect.stringMatching(/^hint: Correct the file/),
    '',
  ]);
  const json = JSON.parse((await stack.tidemark('apply', '-f', file, '--json')).output) as { error: unknown };
  expect(json.error).toMatchObject({
    code: 'BAD_CONFIG',
    details: { problemCount: 3, problems: [{ line: 9, column: 31 }, {}, {}] },
  });
  expect([await machineText(), await loadSite(stack.db)]).toEqual(before);
});

test("another name of the site is refused: what was made under the one before would be nobody's", async () => {
  const before = [await machineText(), await loadSite(stack.db)];
  await writeFile(file, site().replace('site: lab', 'site: lab2'));
  for (const more of [[], ['--dry-run']]) {
    const { exitCode, output, errors } = await stack.tidemark('apply', '-f', file, ...more);
    expect({ exitCode, output }).toEqual({ exitCode: 2, output: '' });
    expect(errors).toMatch(/^error: site lab was applied here, and the file is of site lab2: .*Write `site: lab`/);
  }
  expect([await machineText(), await loadSite(stack.db)]).toEqual(before);
});

test('a failure half way changes nothing', async () => {
  await writeFile(file, site());
  await stack.tidemark('apply', '-f', file);
  const before = [await machineText(), await loadSite(stack.db)];
  await writeFile(file, site().replace('name: p1', 'name: p2'));
  // A directory in the way of the file: as root, rights would not do.
  await mkdir(`${stack.layout.machineFile}.new/x`, { recursive: true });
  const blocked = await stack.tidemark('apply', '-f', file);
  expect(blocked.exitCode).toBe(1);
  expect(blocked.errors).toMatch(/^error: cannot write .*machine\.json\.new: /);
  await rm(`${stack.layout.machineFile}.new`, { recursive: true });
  expect([await machineText(), await loadSite(stack.db)]).toEqual(before);
  // The catalog refuses: the file that was prepared is gone again.
  const refused = site().replace(
    'name: files,',
    `name: ${'ü'.repeat(100)}, uuid: 3f0c1e8a-5d1b-4c7e-9a54-0b8f6d1c2e77,`,
  );
  await stack.db.schema.alterTable('virtual_machines').modifyColumn('name', 'varchar(20)').execute();
  await writeFile(file, refused.replace('vms: [files]', `vms: [${'ü'.repeat(100)}]`));
  const failed = await stack.tidemark('apply', '-f', file);
  await stack.db.schema
    .alterTable('virtual_machines')
    .modifyColumn('name', 'varchar(255)', (c) => c.notNull())
    .execute();
  expect(failed.exitCode).toBe(1);
  expect(failed.errors).toMatch(/^error: the catalog refused: .*too long/);
  expect([await machineText(), await loadSite(stack.db)]).toEqual(before);
  expect(await readdir(stack.layout.configFolder)).toEqual(['database-password', 'machine.json']);
});

test('warns before it removes what a running session uses', async () => {
  await writeFile(file, site());
  await stack.tidemark('apply', '-f', file);
  const vm = (await loadSite(stack.db))!.machines[0]!.hosts[0]!.vms[0]!;
  const startedAt = new Date().toISOString();
  const session = { kind: 'backup', jobId: 'nightly', startedBy: 'manual', nominalTime: startedAt, startedAt } as const;
  await createSession(stack.db, { ...session, sessionId: 's1', workflowId: 'w1' });
  await planSessionVms(stack.db, 's1', [{ vmId: vm.vmId, name: 'files', hostId: 'images' }]);
  await writeFile(file, site().replace('format: raw', 'format: qcow2'));
  const changed = await stack.tidemark('apply', '-f', file, '--dry-run');
  expect(changed.errors).toBe('warning: vm images/files changes, but session s1 uses it\n');
  await writeFile(file, 'site: lab\nmachine: box\nrepositories: [{ name: other, folder: /tmp/td-none }]\n');
  const { exitCode, output } = await stack.tidemark('apply', '-f', file, '--dry-run', '--json');
  expect(exitCode).toBe(0);
  const lasting = ': the checkpoints it holds there stay until the host is back';
  expect((JSON.parse(output) as { warnings: string[] }).warnings).toEqual([
    `host images is removed, but session s1 uses it${lasting}`,
    'vm images/files is removed, but session s1 uses it',
    'job nightly is removed, but session s1 uses it',
  ]);
  const asked = stack.onTerminal('apply', '-f', file);
  await asked.until('Apply it all the same? [y/N]');
  asked.child.stdin!.write('\r');
  expect((await asked.outcome).exitCode).toBe(1);
  await asked.until('nothing was changed');
  expect((await listResources(stack.db, 'host'))[0]).toMatchObject({ id: 'images', state: 'active' });
  const applied = await stack.tidemark('apply', '-f', file);
  expect(applied.exitCode).toBe(0);
  expect(applied.errors).toContain(`warning: host images is removed, but session s1 uses it${lasting}\n`);
  expect((await listResources(stack.db, 'host'))[0]).toMatchObject({ id: 'images', state: 'removed' });
});

test('says what stays of a repository and a job that it removes, and asks nothing', async () => {
  await writeFile(file, site());
  await stack.tidemark('apply', '-f', file);
  for (const vmName of ['files', 'mail']) await recordTestPoint(stack.db, { vmName, disks: ['d0'] });
  await writeFile(file, 'site: lab\nmachine: box\nrepositories: [{ name: other, folder: /tmp/td-none }]\n');
  const warnings = ['repository main', 'job nightly'].map(
    (what) => `${what} is removed: its 2 restore points stay in the folder ${folder}/repository`,
  );
  const dry = JSON.parse((await stack.tidemark('apply', '-f', file, '--dry-run', '--json')).output) as object;
  expect(dry).toMatchObject({ warnings: expect.arrayContaining(warnings) as string[] });
  await stack.db.updateTable('sessions').set({ state: 'Stopped' }).execute();
  const applied = stack.onTerminal('apply', '-f', file);
  expect((await applied.outcome).exitCode).toBe(0);
  for (const warning of warnings) expect(applied.said()).toContain(warning);
  await stack.db.deleteFrom('restore_points').execute();
});

test('looks at sockets and folders without touching them', async () => {
  const listening = path.join(folder, 'a.qmp');
  const dead = path.join(folder, 'b.qmp');
  let connections = 0;
  const server = net.createServer(() => (connections += 1)).listen(listening);
  const gone = net.createServer().listen(dead);
  await new Promise((resolve) => gone.once('listening', resolve));
  await writeFile(path.join(folder, 'c.qmp'), '');
  await mkdir(path.join(folder, 'photos'));
  await writeFile(path.join(folder, 'photos/cat.jpg'), '');
  // A socket file stays when its process is killed; here its listener is closed without the unlink.
  await rename(dead, `${dead}.kept`);
  gone.close();
  await rename(`${dead}.kept`, dead);
  await writeFile(
    file,
    `site: lab
machine: box
hosts:
  - name: kvm
    provider: qemu
    scratch: { folder: ${folder}/scratch }
    vms:
${['a', 'b', 'c', 'd'].map((name) => `      - { name: ${name}, qmp: ${folder}/${name}.qmp }`).join('\n')}
proxies: [{ name: p1, restoreFolders: [${folder}/nowhere] }]
repositories:
  - { name: main, folder: ${folder}/photos, encryption: { passphraseFile: ${folder}/none } }
  - { name: plain, folder: ${folder}/plain, encryption: { keyFile: ${folder}/open.key } }
`,
  );
  await mkdir(path.join(folder, 'plain'));
  const plain = newRepositoryFile(repositoryId('plain'), 'ab'.repeat(16), 'now');
  await writeFile(path.join(folder, 'plain/repository.json'), encodeRepositoryFile(plain));
  await writeFile(path.join(folder, 'open.key'), 'x'.repeat(40));
  await chmod(path.join(folder, 'open.key'), 0o644);
  const { output } = await stack.tidemark('apply', '-f', file, '--json');
  server.close();
  expect((JSON.parse(output) as { warnings: string[] }).warnings.map((text) => text.replaceAll(folder, '~'))).toEqual([
    'VM b, monitor: nobody listens on ~/b.qmp',
    'VM c, monitor: ~/c.qmp is not a socket',
    'VM d, monitor: there is no socket ~/d.qmp',
    'restore folder of proxy p1: there is no folder ~/nowhere',
    'repository main: ~/photos/ is neither empty nor a repository (it has no repository.json)',
    'repository main, key: there is no file ~/none',
    'repository plain: ~/plain is not encrypted, the site has an encryption for it',
    'repository plain, key: ~/open.key can be used by every user of this machine',
  ]);
  expect(connections).toBe(0);
});

test('an image that is called raw and is none is told', async () => {
  await writeFile(file, site());
  await writeFile(`${folder}/files.raw`, Buffer.from('QFI\u00fb\0\0\0\u0003', 'latin1'));
  const applied = await stack.tidemark('apply', '-f', file);
  expect(applied.exitCode).toBe(0);
  expect(applied.errors).toBe(
    `warning: VM files, disk d0: ${folder}/files.raw is called raw and begins like a qcow2 image, ` +
      'so it is not backed up; say `format: qcow2` for it\n',
  );
});

test('a worker that does not come up with it is a warning, with its log', async () => {
  await writeFile(file, site());
  const { children } = JSON.parse(await readFile(stack.layout.stackFile, 'utf8')) as { children: { name: string }[] };
  const broken = children.map((child) =>
    child.name === 'host' ? { ...child, state: 'waiting', restarts: 2, lastExit: 'exit code 1' } : child,
  );
  stack.change({ children: broken as never });
  const { exitCode, errors } = await stack.tidemark('apply', '-f', file);
  stack.change({ children: children as never });
  expect(exitCode).toBe(3);
  expect(errors).toContain(`warning: host is waiting (exit code 1); see ${stack.layout.logFile('host')}\n`);
});

test('what cannot be read, is too large or meets no stack', async () => {
  const missing = await stack.tidemark('apply', '-f', path.join(folder, 'none.yaml'));
  expect(missing.exitCode).toBe(2);
  expect(missing.errors).toMatch(/^error: cannot read .*none\.yaml: ENOENT/);
  const large = path.join(folder, 'large.yaml');
  await writeFile(large, 'x'.repeat(1024 * 1024 + 1));
  expect((await stack.tidemark('apply', '-f', large)).errors).toMatch(/has 1048577 bytes, expected at most 1048576/);
  await writeFile(file, site());
  const none = await stack.tidemark('apply', '-f', file, '--state', path.join(folder, 'state'));
  expect(none.exitCode).toBe(4);
  expect(none.errors).toMatch(/^error: no stack runs in .*\nhint: Start it/);
  expect((await stack.tidemark('apply')).exitCode).toBe(2);
});

test('a computer’s name becomes a machine’s', () => {
  expect(['Backup_1.example.org', '-x-', '日本', 'a'.repeat(40)].map(machineNameOf)).toEqual([
    'backup-1-example-org',
    'x',
    'localhost',
    'a'.repeat(32),
  ]);
});
