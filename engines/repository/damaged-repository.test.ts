/**
 * What is done to copies of the golden repositories, and what comes of it: what opening says, what checks name, which
 * restore points still restore. docs/repository.md has the same table.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { damageTable, rows, type Outcome, type Row } from '../../tests/fixtures/repository/golden-damage-rows.ts';
import { FOREIGN, goldenPlaces, type SealedRun } from '../../tests/fixtures/repository/golden-damage.ts';
import {
  asExpected,
  copyGolden,
  restoreAll,
  type GoldenCopy,
  type GoldenName,
} from '../../tests/fixtures/repository/golden-repository.ts';
import { finishOpenRun } from '../../tests/fixtures/repository/golden-run.ts';

const signal = new AbortController().signal;
const silent = { signal, onProgress: () => undefined };
const copies: GoldenCopy[] = [];
afterEach(async () => {
  for (const copy of copies.splice(0)) await copy.remove();
});

async function fresh(name: GoldenName): Promise<GoldenCopy> {
  const copy = await copyGolden(name);
  copies.push(copy);
  return copy;
}

async function damaged(name: GoldenName, { recipe }: Pick<Row, 'recipe'>): Promise<GoldenCopy> {
  const copy = await fresh(name);
  await recipe(copy, goldenPlaces[name]);
  return copy;
}

const runOfPoint = (name: GoldenName, id: string): SealedRun =>
  Object.entries(goldenPlaces[name].manifests).find(([, path]) => path.endsWith(id))![0] as SealedRun;

async function expectRestored(copy: GoldenCopy, { hit, gone, code: damage }: Outcome): Promise<void> {
  const { sealed } = copy.expected;
  const whole = asExpected(sealed);
  const restored = await restoreAll(copy, sealed);
  for (const { restorePointId } of sealed) {
    const run = runOfPoint(copy.name, restorePointId);
    const code = gone.includes(run) ? 'RESTORE_POINT_NOT_FOUND' : hit.includes(run) ? damage : null;
    expect(restored[restorePointId], run).toEqual(code ?? whole[restorePointId]);
  }
  const listed = copy.repository.listSealed().map(({ restorePointId }) => runOfPoint(copy.name, restorePointId));
  expect(listed.toSorted()).toEqual(
    sealed
      .map(({ restorePointId }) => runOfPoint(copy.name, restorePointId))
      .filter((run) => !gone.includes(run))
      .toSorted(),
  );
}

async function expectChecked(copy: GoldenCopy, depth: 'quick' | 'full', outcome: Outcome): Promise<void> {
  const report = await copy.check({ depth });
  const named = report.damages.map(({ kind, why }) => `${kind}: ${kind === 'manifest' ? why.code : why.message}`);
  expect(named.toSorted(), depth).toEqual(outcome[depth].toSorted());
  const isSeen = outcome[depth].length > 0;
  const hit = isSeen ? outcome.hit : [];
  const runs = (ids: readonly string[]): SealedRun[] => [...new Set(ids.map((id) => runOfPoint(copy.name, id)))];
  expect(runs(report.marked).toSorted(), depth).toEqual(hit.toSorted());
  expect(runs(report.damages.flatMap(({ restorePoints }) => restorePoints)).toSorted(), depth).toEqual(hit.toSorted());
}

/** Of everything but the lock, by name. */
async function contentOf({ folder }: GoldenCopy): Promise<Record<string, string>> {
  const content: Record<string, string> = {};
  for (const name of (await readdir(folder, { recursive: true })).filter((one) => !one.startsWith('lock')))
    content[name] = await readFile(join(folder, name), 'latin1').catch(() => 'a folder');
  return content;
}

describe.each<GoldenName>(['v1-plain', 'v1-encrypted'])('%s', (name) => {
  const ofThis = rows.filter(({ only, encrypted }) => (name === 'v1-plain' ? !only : only !== undefined || encrypted));
  test.each(ofThis)('$what', async (row) => {
    const outcome = { ...row.outcome, ...(name === 'v1-encrypted' && row.encrypted) };
    const copy = await damaged(name, row);
    if (outcome.refused) {
      const before = await contentOf(copy);
      await expect(copy.open()).rejects.toMatchObject({ code: outcome.refused });
      expect(await contentOf(copy)).toEqual(before);
      return;
    }
    await copy.open();
    for (const depth of ['quick', 'full'] as const) await expectChecked(copy, depth, outcome);
    // A block that was found damaged is not looked at again: by now it is missing.
    await expectRestored(copy, { ...outcome, code: outcome.code === 'TAMPERED' ? 'TAMPERED' : 'DAMAGED_BLOCK' });
    // By a process that no check has told where damage is, too.
    if (outcome.hit.length === 0) return;
    const other = await damaged(name, row);
    await other.open();
    await expectRestored(other, outcome);
  });
});

const rowOf = (what: string): Row => rows.find((row) => row.what === what)!;

describe('the open run', () => {
  test.each([
    ['v1-plain', 'open pack torn, in a record of an open run'],
    ['v1-encrypted', 'flipped bit in a ledger'],
  ] as const)('of %s sends again what is lost: %s', async (name, what) => {
    const copy = await damaged(name, rowOf(what));
    await copy.open();
    expect(await finishOpenRun(copy)).toEqual([2, 1, 1]);
    expect((await copy.check()).damages).toEqual([]);
  });

  test('is not listed without its head, and nothing is collected then: nobody knows what it needs', async () => {
    const copy = await damaged('v1-plain', rowOf('flipped bit in the head of an open run'));
    await copy.open();
    expect(copy.repository.listOpen()).toEqual([]);
    expect((await copy.repository.collect(silent)).stopped).toMatchObject({ code: 'REPOSITORY_CORRUPT' });
  });
});

test('flags that cannot be read hold their restore point', async () => {
  const copy = await damaged('v1-plain', rowOf('flipped bit in flags'));
  await copy.open();
  expect(copy.repository.flagsOf(copy.expected.keep).hold).toMatch(/./);
});

test('repository.json is made whole from its copy, and the copy from it', async () => {
  const path = (copy: GoldenCopy, name: string): string => join(copy.folder, name);
  const right = await readFile(path(await fresh('v1-encrypted'), 'repository.json'), 'utf8');
  for (const lost of ['repository.json', 'repository.json.copy']) {
    const copy = await fresh('v1-encrypted');
    await rm(path(copy, lost));
    await copy.open();
    expect(await readFile(path(copy, lost), 'utf8')).toBe(right);
  }
});

test('a feature that may be ignored stays where it is', async () => {
  const copy = await damaged('v1-encrypted', rowOf('unknown feature that may be ignored'));
  await rm(join(copy.folder, 'repository.json.copy'));
  await copy.open();
  const file = await readFile(join(copy.folder, 'repository.json.copy'), 'utf8');
  expect(JSON.parse(file)).toMatchObject({ features: { may: ['hints'] } });
});

test('an orphan goes to the trash with the next collection; foreign files stay, through every collection', async () => {
  const copy = await damaged('v1-plain', rowOf('orphan: a pack that nobody needs'));
  await rowOf('foreign files').recipe(copy, goldenPlaces['v1-plain']);
  await copy.open();
  expect(await copy.repository.collect(silent)).toMatchObject({ stopped: null, packsTrashed: 1 });
  await copy.repository.collect(silent);
  expect(FOREIGN.filter((name) => !existsSync(join(copy.folder, name)))).toEqual([]);
});

test('two processes: the second is refused, and told who owns it', async () => {
  const copy = await fresh('v1-plain');
  const entry = new URL('../../tests/fixtures/repository/owner-process.ts', import.meta.url).pathname;
  const owner = spawn(process.execPath, [entry, copy.folder, `${copy.indexFolder}2`], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  try {
    await once(owner.stdout, 'data');
    await expect(copy.open()).rejects.toMatchObject({
      code: 'REPOSITORY_IN_USE',
      message: expect.stringContaining(`process ${owner.pid} `) as string,
    });
  } finally {
    owner.kill('SIGKILL');
    await once(owner, 'exit');
  }
  await copy.open();
  await expectRestored(copy, rowOf('foreign files').outcome);
});

test('docs/repository.md has the table', async () => {
  const page = await readFile(new URL('../../docs/repository.md', import.meta.url), 'utf8');
  expect(page, 'write what damageTable() gives').toContain(damageTable());
});
