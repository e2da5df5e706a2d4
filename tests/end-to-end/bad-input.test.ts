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

let world: World;
let images: string;
beforeAll(async () => {
  world = await startEmptyWorld();
  images = path.join(world.root, 'images');
  await mkdir(images);
});
afterAll(() => world?.close());

type Image = { name: string; file: string; format: 'raw' | 'qcow2'; allowBacking?: boolean };

/** A VM per image, a job per VM. */
const siteOf = (list: readonly Image[], repository = world.repository): string => `site: w
machine: m1
hosts:
  - name: images
    provider: image
    vms:
${list
  .map(({ name, file, format, allowBacking = false }) => {
    const disk = `{ name: d0, file: ${file}, format: ${format}, allowBacking: ${allowBacking} }`;
    return `      - { name: ${name}, disks: [${disk}] }`;
  })
  .join('\n')}
proxies:
  - { name: p1, restoreFolders: [${world.restores}] }
repositories:
  - { name: main, folder: ${repository} }
jobs:
${list.map(({ name }) => `  - { name: ${name}, vms: [${name}], repository: main, consistency: none }`).join('\n')}
`;

async function applied(text: string): Promise<void> {
  const { code, stderr } = await world.apply(text);
  expect([0, 3], stderr).toContain(code);
}

async function imageOf(name: string, bytes: number): Promise<Image> {
  const file = path.join(images, `${name}.raw`);
  await writeFile(file, randomBytes(bytes));
  return { name, file, format: 'raw' };
}

describe('site.yaml', () => {
  test('unknown keys and wrong types: file, line, what was expected; nothing is changed', async () => {
    await applied(siteOf([await imageOf('plain', 3 * MIB)]));
    const machine = path.join(world.state, 'config/machine.json');
    const before = await readFile(machine, 'utf8');
    const text = siteOf([]).replace('site: w', 'sight: w').replace('jobs:', 'jobs: 7');
    const { code, stderr } = await world.apply(text);
    expect(code).toBe(2);
    expect(stderr).toMatch(/site\.yaml:1:\d+.*sight/);
    expect(stderr).toMatch(/site\.yaml:\d+:\d+.*jobs/);
    expect(stderr).toContain('hint: ');
    expect(await readFile(machine, 'utf8')).toBe(before);
  });

  test('a job with a VM that does not exist is refused, with the nearest name', async () => {
    const { code, stderr } = await world.apply(
      siteOf([await imageOf('plain', 1)]).replace('vms: [plain]', 'vms: [plane]'),
    );
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
  test('odd sizes come back byte for byte: no multiple of the block, of 512 B, one byte; of zero length is refused', async () => {
    const sizes = { block: 3 * MIB + 512, sector: MIB + 100, byte: 1 };
    const list = await Promise.all(Object.entries(sizes).map(([name, bytes]) => imageOf(`odd-${name}`, bytes)));
    const empty = await imageOf('empty', 0);
    await applied(siteOf([...list, empty]));
    const refused = await world.runJob([1], 'empty');
    expect(refused.error).toMatchObject({ code: 'BAD_DISK', message: expect.stringContaining(empty.file) });
    for (const { name, file } of list) {
      const report = await world.runJob([0], name);
      const restored = await world.restore(report.session!.vms[0]!.restorePointId!, name);
      await expectSameBytes(restored['d0']!, file);
    }
  });

  test('an image with a backing file is refused by name; allowed, the flattened view is backed up', async () => {
    const { file: base } = await imageOf('base', 2 * MIB);
    const file = path.join(images, 'overlay.qcow2');
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', file]);
    execFileSync('qemu-io', ['-c', 'write -q -P 7 512k 64k', file]);
    const overlay = { name: 'overlay', file, format: 'qcow2' } as const;
    await applied(siteOf([overlay]));
    const refused = await world.runJob([1], 'overlay');
    expect(refused.error).toMatchObject({ code: 'BACKING_FILE', message: expect.stringContaining('overlay.qcow2') });
    expect(refused.error!.hint).toContain('allowBacking');
    await applied(siteOf([{ ...overlay, allowBacking: true }]));
    const report = await world.runJob([0], 'overlay');
    const restored = await world.restore(report.session!.vms[0]!.restorePointId!, 'overlay');
    const flat = path.join(images, 'flat.raw');
    execFileSync('qemu-img', ['convert', '-O', 'raw', file, flat]);
    await expectSameBytes(restored['d0']!, flat);
  });

  test('an image that is not there', async () => {
    await applied(siteOf([{ name: 'gone', file: path.join(images, 'gone.qcow2'), format: 'qcow2' }]));
    const report = await world.runJob([1], 'gone');
    expect(report.error!.message).toContain('gone.qcow2');
    expect(report.error!.hint).toMatch(/\.$/);
  });
});

describe('repositories', () => {
  test('a folder that is not one is left as it is', async () => {
    const folder = path.join(world.root, 'papers');
    await mkdir(folder);
    await writeFile(path.join(folder, 'letter.txt'), 'dear\n');
    await applied(siteOf([await imageOf('plain', MIB)], folder));
    const report = await world.runJob([1], 'plain');
    expect(report.error).toMatchObject({ code: 'REPOSITORY_NOT_ONE', message: expect.stringContaining(folder) });
    execFileSync('sh', ['-c', `[ "$(ls -A ${folder})" = letter.txt ]`]);
  });

  test('one that another stack has in use', async () => {
    await applied(siteOf([await imageOf('plain', MIB)]));
    await world.runJob([0], 'plain');
    const other = await startEmptyWorld();
    try {
      const { code } = await other.apply(siteOf([await imageOf('plain', MIB)]));
      expect([0, 3]).toContain(code);
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

  const why = whyNoSmallDisk();
  test.skipIf(why !== null)(
    `a full disk${why ? ` (left out: ${why})` : ''}: nothing is lost, and with room again it works`,
    async () => {
      const disk = mountSmallDisk(48)!;
      try {
        const folder = path.join(disk.folder, 'repository');
        const small = await imageOf('small', 4 * MIB);
        const large = await imageOf('large', 96 * MIB);
        await applied(siteOf([small, large], folder));
        const first = await world.runJob([0], 'small');
        const full = await world.runJob([1], 'large');
        expect(full.error).toMatchObject({ code: 'REPOSITORY_FULL', hint: expect.stringContaining('space') });
        const restored = await world.restore(first.session!.vms[0]!.restorePointId!, 'small');
        await expectSameBytes(restored['d0']!, small.file);
        execFileSync('mount', ['-o', 'remount,size=400m', disk.folder]);
        const again = await world.runJob([0], 'large');
        await expectSameBytes(
          (await world.restore(again.session!.vms[0]!.restorePointId!, 'large'))['d0']!,
          large.file,
        );
        await applied(siteOf([small]));
      } finally {
        disk.remove();
      }
    },
  );
});

describe('restores', () => {
  test('never over a file that exists, never outside the allowed folders', async () => {
    const image = await imageOf('plain', MIB);
    await applied(siteOf([image]));
    const report = await world.runJob([0], 'plain');
    const point = report.session!.vms[0]!.restorePointId!;
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
