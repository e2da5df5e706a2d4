/** What people get wrong: each a clear error that names the thing and the way out; nothing lost. Image hosts, no guest. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { expectSameBytes } from '../fixtures/oracle.ts';
import { mountSmallDisk, whyNoSmallDisk } from '../fixtures/small-disk.ts';
import type { SessionReport } from '../fixtures/world/report.ts';
import { MIB, startEmptyWorld, type World } from '../fixtures/world/world.ts';

const smallDiskMissing = whyNoSmallDisk();
const odd = { 'odd-block': 3 * MIB + 512, 'odd-sector': MIB + 100, 'odd-byte': 1 } as const;
let world: World;
let images: string;
let papers: string;
let smallDisk: ReturnType<typeof mountSmallDisk> = null;

/** All that is wrong is in one site: each apply starts the workers anew. */
beforeAll(async () => {
  world = await startEmptyWorld();
  images = path.join(world.root, 'images');
  papers = path.join(world.root, 'papers');
  for (const folder of [images, papers]) await mkdir(folder);
  await writeFile(path.join(papers, 'letter.txt'), 'dear\n');
  const sizes = { plain: 3 * MIB, ...odd, empty: 0, base: 2 * MIB, lost: MIB, small: 4 * MIB, large: 96 * MIB };
  for (const [name, bytes] of Object.entries(sizes)) await writeFile(fileOf(name), randomBytes(bytes));
  const overlay = fileOf('overlay', 'qcow2');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', fileOf('base'), '-F', 'raw', overlay]);
  execFileSync('qemu-io', ['-c', 'write -q -P 7 512k 64k', overlay]);
  if (smallDiskMissing === null) smallDisk = mountSmallDisk(48)!;
  await applied(siteText());
});
afterAll(async () => {
  await world?.close();
  smallDisk?.remove();
});

const fileOf = (name: string, format: 'raw' | 'qcow2' = 'raw'): string => path.join(images, `${name}.${format}`);
const smallFolder = (): string => (smallDisk ? path.join(smallDisk.folder, 'repository') : `${world.root}/small`);

/** Of VMs of one disk each: name, file, more of the disk. A job per VM and one of those of odd sizes. */
function siteText(): string {
  const names = ['plain', ...Object.keys(odd), 'empty', 'lost', 'small', 'large'];
  const vms = [
    ...names.map((name) => [name, fileOf(name), 'format: raw']),
    ['gone', fileOf('gone', 'qcow2'), 'format: qcow2'],
    ['overlay', fileOf('overlay', 'qcow2'), 'format: qcow2'],
    ['flattened', fileOf('overlay', 'qcow2'), 'format: qcow2, allowBacking: true'],
  ] as const;
  const repositoryOf: Record<string, string> = { lost: 'papers', small: 'small', large: 'small' };
  const jobs = vms.map(([name]) => [name, name, repositoryOf[name] ?? 'main']);
  return `site: w
machine: m1
hosts:
  - name: images
    provider: image
    vms:
${vms.map(([name, file, more]) => `      - { name: ${name}, disks: [{ name: d0, file: ${file}, ${more} }] }`).join('\n')}
proxies:
  - { name: p1, restoreFolders: [${world.restores}] }
repositories:
  - { name: main, folder: ${world.repository} }
  - { name: papers, folder: ${papers} }
  - { name: small, folder: ${smallFolder()} }
jobs:
${[...jobs, ['odd', Object.keys(odd).join(', '), 'main']]
  .map(([name, of, repository]) => `  - { name: ${name}, vms: [${of}], repository: ${repository}, consistency: none }`)
  .join('\n')}
`;
}

async function applied(text: string, to = world): Promise<void> {
  const { code, stderr } = await to.apply(text);
  expect([0, 3], stderr).toContain(code);
}

const pointOf = (report: SessionReport, vm = 0): string => report.session!.vms[vm]!.restorePointId!;

describe('site.yaml', () => {
  test('unknown keys and wrong types: file, line, what was expected; nothing is changed', async () => {
    const machine = path.join(world.state, 'config/machine.json');
    const before = await readFile(machine, 'utf8');
    const text = siteText().replace('site: w', 'sight: w').replace('jobs:', 'jobs: 7\nwork:');
    const { code, stderr } = await world.apply(text);
    expect(code).toBe(2);
    expect(stderr).toMatch(/site\.yaml:1:\d+.*sight/);
    expect(stderr).toMatch(/site\.yaml:\d+:\d+.*jobs/);
    expect(stderr).toContain('hint: ');
    expect(await readFile(machine, 'utf8')).toBe(before);
  });

  test('a job with a VM that does not exist is refused, with the nearest name', async () => {
    const { code, stderr } = await world.apply(siteText().replace('vms: [plain]', 'vms: [plane]'));
    expect(code).toBe(2);
    expect(stderr).toMatch(/site\.yaml:\d+:\d+.*plane/s);
    expect(stderr).toContain('plain');
  });

  test('a job that does not exist', async () => {
    const { code, stderr } = await world.call('job', 'run', 'plan');
    expect(code).toBe(2);
    expect(stderr).toMatch(/error: .*plan/);
    expect(stderr).toContain('plain');
  });
});

describe('disks', () => {
  test('odd sizes come back byte for byte: no multiple of the block, of 512 B, one byte', async () => {
    const { vms } = (await world.runJob([0], 'odd')).session!;
    expect(vms.map(({ name }) => name).toSorted()).toEqual(Object.keys(odd).toSorted());
    for (const { name, restorePointId } of vms) {
      const restored = await world.restore(restorePointId!, name);
      await expectSameBytes(restored['d0']!, fileOf(name));
    }
  });

  test('one of zero length is refused', async () => {
    const refused = await world.runJob([1], 'empty');
    expect(refused.error).toMatchObject({ code: 'BAD_DISK', message: expect.stringContaining(fileOf('empty')) });
  });

  test('an image with a backing file is refused by name; allowed, the flattened view is backed up', async () => {
    const refused = await world.runJob([1], 'overlay');
    expect(refused.error).toMatchObject({ code: 'BACKING_FILE', message: expect.stringContaining('overlay.qcow2') });
    expect(refused.error!.hint).toContain('allowBacking');
    const restored = await world.restore(pointOf(await world.runJob([0], 'flattened')), 'flattened');
    const flat = path.join(images, 'flat.raw');
    execFileSync('qemu-img', ['convert', '-O', 'raw', fileOf('overlay', 'qcow2'), flat]);
    await expectSameBytes(restored['d0']!, flat);
  });

  test('an image that is not there', async () => {
    const report = await world.runJob([1], 'gone');
    expect(report.error!.message).toContain('gone.qcow2');
    expect(report.error!.hint).toMatch(/\.$/);
  });
});

describe('repositories', () => {
  test('a folder that is not one is left as it is', async () => {
    const report = await world.runJob([1], 'lost');
    expect(report.error).toMatchObject({ code: 'REPOSITORY_NOT_ONE', message: expect.stringContaining(papers) });
    execFileSync('sh', ['-c', `[ "$(ls -A ${papers})" = letter.txt ]`]);
  });

  test('one that another stack has in use', async () => {
    const other = await startEmptyWorld();
    try {
      await applied(siteText(), other);
      const report = await other.runJob([1], 'plain');
      expect(report.error).toMatchObject({
        code: 'REPOSITORY_IN_USE',
        message: expect.stringContaining(world.repository),
      });
    } finally {
      await other.close();
    }
    expect((await world.runJob([0], 'plain')).result).toBe('Success');
  });

  test.skipIf(smallDiskMissing !== null)(
    `a full disk${smallDiskMissing ? ` (left out: ${smallDiskMissing})` : ''}: nothing is lost, and with room again it works`,
    async () => {
      const first = await world.runJob([0], 'small');
      const full = await world.runJob([1], 'large');
      expect(full.error).toMatchObject({ code: 'REPOSITORY_FULL', hint: expect.stringContaining('space') });
      await expectSameBytes((await world.restore(pointOf(first), 'small'))['d0']!, fileOf('small'));
      execFileSync('mount', ['-o', 'remount,size=400m', smallDisk!.folder]);
      const again = await world.runJob([0], 'large');
      await expectSameBytes((await world.restore(pointOf(again), 'large'))['d0']!, fileOf('large'));
    },
  );
});

describe('restores', () => {
  test('never over a file that exists, never outside the allowed folders', async () => {
    const point = pointOf(await world.runJob([0], 'plain'));
    const [file] = Object.values(await world.restore(point, 'once'));
    const before = await readFile(file!);
    const args = ['restore', 'vm', point, '--name', 'once', '--into'];
    const again = await world.json<SessionReport>([...args, world.restores], [1, 2]);
    expect(again.error).toMatchObject({ code: 'TARGET_EXISTS', message: expect.stringContaining(file!) });
    expect((await readFile(file!)).equals(before)).toBe(true);
    const outside = await world.json<SessionReport>([...args, images], [2]);
    expect(outside.error).toMatchObject({ code: 'TARGET_NOT_ALLOWED', message: expect.stringContaining(images) });
    expect(existsSync(path.join(images, 'once-d0.raw'))).toBe(false);
  });

  test('a restore point that is not there', async () => {
    const { code, stderr } = await world.call('restore', 'vm', 'ffffffff', '--into', world.restores);
    expect(code).toBe(2);
    expect(stderr).toContain('restore-point list');
  });
});
