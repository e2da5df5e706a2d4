/** A repository without a stack, as a person finds it: damaged by a byte, checked, repaired, and restored from. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { SealOutcome } from '../../schema/domain/restore-point.ts';
import { RECORD_HEADER_BYTES } from '../../schema/repository/limits.ts';
import { rootFolder } from '../../setup/locate.mjs';
import { flipBit, packPath, placeOfBlock } from '../../tests/fixtures/repository/damage.ts';
import { handRestore } from '../../tests/fixtures/repository/hand-restore.ts';
import { createTestRepository, DISK, type TestRepository } from '../../tests/fixtures/repository/test-repository.ts';
import { diskOf, verbsOf } from '../../tests/fixtures/repository/verbs.ts';

type Outcome = { exitCode: number; output: string; errors: string };
const PASSPHRASE = 'correct horse battery stäple';
const disk = diskOf(3);

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'td-off-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function repositoryCommand(...args: string[]): Promise<Outcome> {
  const entry = path.join(rootFolder, 'cli/tidemark.ts');
  const env = { ...process.env, TIDEMARK_STATE: path.join(folder, 'no-stack') };
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [entry, 'repository', ...args], { env });
    return { exitCode: 0, output: stdout, errors: stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { exitCode: code, output: stdout, errors: stderr };
  }
}

describe.each([
  { kind: 'plain', passphrase: null },
  { kind: 'encrypted', passphrase: PASSPHRASE },
])('a repository that is $kind', ({ passphrase }) => {
  let world: TestRepository;
  let sealed: SealOutcome;
  let offline: string[];
  beforeEach(async () => {
    const secret = passphrase === null ? null : { kind: 'passphrase' as const, passphrase };
    world = await createTestRepository({ secret });
    sealed = await verbsOf(() => world).sealedFull(1, disk);
    await world.reopen();
    const file = path.join(folder, 'passphrase');
    if (passphrase !== null) await writeFile(file, `${passphrase}\n`, { mode: 0o600 });
    offline = ['--offline', world.folder, ...(passphrase === null ? [] : ['--passphrase-file', file])];
  });
  afterEach(() => world.close());

  /** One byte of block 1, `at` in its record; nobody has the repository open afterwards. */
  async function damage(at: number): Promise<void> {
    const place = await placeOfBlock(world, sealed.restorePointId, 1);
    await world.sink.close();
    await world.repository.close();
    await flipBit(packPath(world, place.pack), place.offset + at);
  }
  const restored = (): Promise<Buffer> => handRestore(world, sealed.restorePointId, DISK);

  test('that has lost the header of a record is found damaged, and is whole after its repair', async () => {
    await damage(50);
    const sums = await repositoryCommand('check', ...offline, '--sums');
    expect(sums).toMatchObject({ exitCode: 1, output: expect.stringContaining('its header is damaged') });
    const dry = await repositoryCommand('repair', ...offline, '--dry-run', '--json');
    const found = { packsSalvaged: 1, recordsSaved: 3, recordsLost: 0, damaged: [], whole: 1 };
    expect(dry).toMatchObject({ exitCode: 0 });
    expect(JSON.parse(dry.output)).toMatchObject({ repository: 'main', dryRun: true, report: found });
    const repaired = await repositoryCommand('repair', ...offline);
    expect(repaired).toMatchObject({ exitCode: 0, output: expect.stringContaining('damaged packs:           1\n') });
    const after = await repositoryCommand('check', ...offline, '--full');
    expect(after).toMatchObject({ exitCode: 0, output: expect.stringMatching(/^check \(full\): no damage\n/) });
    await world.reopen();
    expect((await restored()).equals(disk)).toBe(true);
  });

  test('of which a payload rotted is told with what it hits, until the VM has stored the block again', async () => {
    await damage(RECORD_HEADER_BYTES + 1);
    expect(await repositoryCommand('check', ...offline, '--full')).toMatchObject({ exitCode: 1 });
    const repaired = await repositoryCommand('repair', ...offline, '--json');
    expect(repaired.exitCode).toBe(1);
    const lost = [{ restorePointId: sealed.restorePointId, missingBytes: 1024 * 1024 }];
    expect(JSON.parse(repaired.output)).toMatchObject({ report: { recordsSaved: 2, recordsLost: 1, damaged: lost } });
    await world.reopen();
    await expect(restored()).rejects.toMatchObject({
      code: 'DAMAGED_BLOCK',
      message: expect.stringContaining('no other restore point of the VM is whole'),
      hint: expect.stringMatching(/if the message names a whole one\. If not, run the job of the VM/),
    });
    await verbsOf(() => world).sealedFull(2, disk);
    expect((await restored()).equals(disk)).toBe(true);
  });
});

test('a folder that cannot be worked on is a bad argument, never damage', async () => {
  const world = await createTestRepository();
  try {
    const taken = await repositoryCommand('check', '--offline', world.folder, '--full');
    expect(taken).toMatchObject({ exitCode: 2, errors: expect.stringContaining('owns the repository') });
  } finally {
    await world.close();
  }
  const empty = path.join(folder, 'empty');
  await mkdir(empty);
  const file = path.join(folder, 'file');
  await writeFile(file, '');
  for (const [command, none] of [
    ['check', empty],
    ['repair', path.join(folder, 'nowhere')],
    ['stats', file],
  ] as const) {
    const refused = await repositoryCommand(command, '--offline', none);
    expect(refused).toMatchObject({ exitCode: 2, output: '' });
    expect(refused.errors).toContain(`${none} is not a repository: it has no repository.json`);
    expect(refused.errors).toMatch(/\nhint: Name the folder that has the repository\.json of this repository;/);
  }
});
