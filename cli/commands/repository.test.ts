/** Maintenance through the command line: real workflows, catalog, Temporal server and repository. */
import { defineSearchAttributeKey } from '@temporalio/common';
import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { listRestorePoints } from '../../schema/catalog/restore-points.ts';
import { listSessions } from '../../schema/catalog/sessions.ts';
import { applySite, loadSite } from '../../schema/catalog/site.ts';
import { formatBytes } from '../../schema/domain/figures.ts';
import type { RepositoryStatistics } from '../../schema/domain/maintenance.ts';
import { DEFAULT_MINIMUM_GOOD } from '../../schema/domain/retention.ts';
import { searchAttributeNames } from '../../schema/domain/sessions.ts';
import type { RestorePointSummary } from '../../schema/catalog/restore-points.ts';
import { verbsOf } from '../../tests/fixtures/repository/verbs.ts';
import { type PlayedRepository, playRepository } from '../../tests/fixtures/cli/played-repository.ts';
import { type PlayedStack, startPlayedStack, waitFor } from '../../tests/fixtures/cli/played-stack.ts';
import type { Outcome } from '../../tests/fixtures/cli/test-stack.ts';
import { DAY_MS } from '../../tests/fixtures/repository/maintained.ts';
import type { SessionReport } from '../follow-session.ts';
import type { Figures } from '../repository-figures.ts';

let stack: PlayedStack;
let repository: PlayedRepository;
const ids: string[] = [];
const tidemark = (...args: string[]): Promise<Outcome> => stack.stack.tidemark(...args);
const json = async <T>(...args: string[]): Promise<T> => JSON.parse((await tidemark(...args, '--json')).output) as T;
const listed = (): Promise<RestorePointSummary[]> => listRestorePoints(stack.stack.db);

let time: RepositoryStatistics['time'] = { at: null, doubt: null };

beforeAll(async () => {
  stack = await startPlayedStack();
  repository = await playRepository(stack.temporal.address, stack.stack.db);
  for (const day of [0, 1, 2, 3, 4, 5]) {
    ids.push((await repository.seal(day)).restorePointId);
    repository.world.pass(DAY_MS);
  }
  Object.assign(repository.played, {
    statistics: () =>
      Promise.resolve({
        restorePoints: 6,
        vms: 1,
        logicalBytes: 6 << 20,
        deduplicatedBytes: 6 << 20,
        storedBytes: 3 << 20,
        deadBytes: null,
        trashBytes: 0,
        freeBytes: null,
        time,
        byVm: [
          {
            vmId: 'v',
            name: 'vm1',
            restorePoints: 6,
            logicalBytes: 6 << 20,
            uniqueBytes: 1,
            storedBytes: 3 << 20,
          },
        ],
      }),
  });
});
afterAll(async () => {
  await repository?.close();
  await stack?.close();
});

/** As `apply` of a site.yaml in which the job has it, and the repository its alarms. */
async function keepNewest(count: number): Promise<void> {
  const { db } = stack.stack;
  const site = (await loadSite(db))!;
  const none = { days: null, weekly: null, monthly: null, yearly: null, deletedVmDays: null, timeZone: 'UTC' };
  const retention = { ...none, count, minimum: DEFAULT_MINIMUM_GOOD };
  const vm = { hostId: 'h1', name: 'vm1', vmId: '22222222-0000-4000-8000-000000000001', excludeDisks: [] };
  const jobs = site.jobs.map((job) => (job.jobId === 'nightly' ? { ...job, retention, vms: [vm] } : job));
  await applySite(db, { ...site, jobs: jobs as typeof site.jobs });
}

describe('a lost catalog', () => {
  test('comes back from the repository alone, and again changes nothing', async () => {
    expect(await listed()).toEqual([]);
    const first = await tidemark('repository', 'import', 'main');
    expect(first).toMatchObject({ exitCode: 0, errors: '' });
    expect(first.output).toMatch(/^session \S+: (Starting|Working)/);
    expect(first.output).toMatch(
      /\nimport: done \(6 restore points: 6 added to the catalog, 0 changed, 0 no longer there\)\n/,
    );
    expect(first.output).toContain('maintenance of repository main\nstate:   Stopped, Success\n');
    expect(first.output).toContain(
      'catalog: the repository has 6 restore points: 6 added, 0 changed, 0 taken out; 6 sessions added',
    );
    expect((await listed()).map(({ restorePointId }) => restorePointId)).toEqual(ids.toReversed());
    const sessions = (await listSessions(stack.stack.db)).filter(({ kind }) => kind === 'backup');
    expect(sessions).toHaveLength(6);
    expect(sessions[0]).toMatchObject({ jobId: 'nightly', startedBy: 'import', result: 'Success' });
    const again = await json<SessionReport>('repository', 'import', 'main');
    expect(again).toMatchObject({ result: 'Success', session: { kind: 'maintenance', repositoryId: 'main' } });
    expect(again.outcomes[0]).toMatchObject({
      step: 'import',
      counts: { restorePoints: 6, added: 0, changed: 0, removed: 0, sessionsAdded: 0 },
    });
    const shown = await tidemark('session', 'show', 'latest');
    expect(shown.output).toContain('the repository has 6 restore points: 0 added');
  });

  test('knows what lies in the trash, too: it can be brought back', async () => {
    const [oldest] = ids as [string];
    const removed = await tidemark('restore-point', 'remove', oldest);
    expect(removed.exitCode).toBe(0);
    // An answer that never came; then no catalog at all.
    for (const lose of [
      () => stack.stack.db.updateTable('restore_points').set({ removed_at: null, said_at: null }),
      () => stack.stack.db.deleteFrom('restore_points'),
    ]) {
      await lose().execute();
      const imported = await tidemark('repository', 'import', 'main');
      expect(imported.output).toContain('catalog: the repository has 5 restore points, and 1 in the trash: ');
      expect(await listed()).toHaveLength(5);
      const { restorePoints } = await json<{ restorePoints: RestorePointSummary[] }>(
        'restore-point',
        'list',
        '--removed',
      );
      expect(restorePoints).toMatchObject([{ restorePointId: oldest, vmName: 'vm1' }]);
      expect(restorePoints[0]!.trashedUntil).not.toBeNull();
    }
    expect(await json('restore-point', 'undelete', oldest)).toMatchObject({ restorePointId: oldest, removed: false });
    expect(await listed()).toHaveLength(6);
  });
});

describe('one restore point', () => {
  test('is kept and held, which protects it, and released; wherever it is listed it says so', async () => {
    const [oldest] = ids as [string];
    const held = await tidemark('restore-point', 'hold', oldest, 'audit 17');
    expect(held).toEqual({
      exitCode: 0,
      errors: '',
      output: `restore point ${oldest.slice(0, 12)} of VM vm1 is held: audit 17\n`,
    });
    expect(await json('restore-point', 'keep', oldest.slice(0, 8))).toMatchObject({
      restorePointId: oldest,
      repository: 'main',
      removed: false,
      flags: { keep: true, hold: 'audit 17' },
    });
    expect((await tidemark('restore-point', 'list', '--repository', 'main')).output).toContain('kept, held: audit 17');
    const shown = await tidemark('restore-point', 'show', oldest);
    expect(shown.output).toMatch(/kept: +yes[^]*held: +audit 17/);
    const refused = await tidemark('restore-point', 'remove', oldest);
    expect(refused.exitCode).toBe(2);
    expect(refused.errors).toMatch(/^error: restore point \S+ is not removed: held: audit 17\nhint: /);
    expect((await tidemark('restore-point', 'release', oldest)).output).toContain('is kept\n');
    expect((await tidemark('restore-point', 'unkeep', oldest)).output).toContain('stays as long as retention says');
    expect(repository.world.repository.flagsOf(oldest as never)).toMatchObject({ keep: false, hold: null });
  });

  test('goes to the trash and comes back; the last good one does not go, unless that is said', async () => {
    const [oldest] = ids as [string];
    const removed = await tidemark('restore-point', 'remove', oldest);
    expect(removed).toMatchObject({ exitCode: 0, output: expect.stringContaining('is in the trash') });
    expect((await listed()).map(({ restorePointId }) => restorePointId)).not.toContain(oldest);
    expect((await tidemark('restore-point', 'show', oldest)).exitCode).toBe(2);
    expect((await tidemark('restore-point', 'list', '--removed')).output).toMatch(
      new RegExp(`IN THE TRASH UNTIL\n${oldest.slice(0, 12)} .* \\d{4}-\\d\\d-\\d\\d \\S+\n$`),
    );
    expect(await json('restore-point', 'undelete', oldest.slice(0, 10))).toMatchObject({ removed: false });
    expect(await listed()).toHaveLength(6);
    const nothing = await tidemark('restore-point', 'undelete', oldest);
    expect(nothing).toMatchObject({ exitCode: 2, errors: expect.stringContaining('in the trash') });
    const newest = await tidemark('restore-point', 'remove', 'vm1@latest');
    expect(newest).toMatchObject({ exitCode: 2, errors: expect.stringContaining('newest good one') });
    const empty = await tidemark('restore-point', 'hold', oldest, ' ');
    expect(empty).toMatchObject({ exitCode: 2, errors: expect.stringMatching(/^error: a reason to hold has/) });
  });
});

describe('repository prune', () => {
  test('dry: says of each what would become of it and why, and changes nothing', async () => {
    await keepNewest(4);
    await tidemark('restore-point', 'keep', ids[0]!);
    const dry = await tidemark('repository', 'prune', 'main', '--dry-run');
    expect(dry.exitCode).toBe(0);
    expect(dry.output).toContain('retention: 1 would go, 5 stay');
    const row = (id: string): string => dry.output.split('\n').find((line) => line.includes(id.slice(0, 12)))!;
    expect(row(ids[0]!)).toMatch(/^vm1 +nightly .* stays +marked to be kept$/);
    expect(row(ids[1]!)).toMatch(/ would go +not among the newest 4 and not needed for the minimum of 3 good$/);
    expect(row(ids[5]!)).toMatch(/ stays +one of the 3 newest good ones; among the newest 4$/);
    expect(repository.world.repository.listSealed()).toHaveLength(6);
    const report = await json<SessionReport>('repository', 'prune', 'main', '--dry-run');
    expect(report.outcomes).toMatchObject([{ step: 'retention', dryRun: true, lineages: [{ stays: 5 }] }]);
  });

  test('removes what no rule keeps, and collects; each that went is told', async () => {
    const done = await tidemark('repository', 'prune', 'main');
    expect(done.exitCode).toBe(0);
    expect(done.output).toContain('retention: 1 went to the trash, 5 stay');
    expect(done.output).toMatch(/\ncollection\n {2}living: +\d/);
    expect(done.output).toMatch(
      new RegExp(
        `info +vm1|info .*restore point ${ids[1]!.slice(0, 12)} of VM vm1, taken .*, goes: not among the newest 4`,
      ),
    );
    expect(repository.world.repository.listSealed()).toHaveLength(5);
    expect((await listed()).map(({ restorePointId }) => restorePointId)).not.toContain(ids[1]);
  });
});

describe('repository check', () => {
  test('damage: exit code 1, and a report that names block, pack and restore points', async () => {
    const why = { code: 'TORN', message: 'the payload does not match its sum' };
    const pack = 'c'.repeat(32);
    const hit = ids[5] as never;
    const damage = { kind: 'record' as const, name: 'block 77ab', pack, offset: 4096, why, restorePoints: [hit] };
    repository.played.check = (request, { onProgress }) => {
      onProgress({ step: 'reading packs', doneBytes: 50, totalBytes: 100 });
      const looked = {
        depth: request.depth,
        whole: true,
        restorePoints: 5,
        packs: 9,
        checkedBytes: 1024,
        openPacks: 0,
      };
      return Promise.resolve({ ...looked, damages: [damage], marked: [hit], healed: [] });
    };
    const found = await tidemark('repository', 'check', 'main', '--full');
    expect(found.exitCode).toBe(1);
    expect(found.output).toContain('check (full): 1 DAMAGED');
    expect(found.output).toMatch(
      new RegExp(`\nrecord +block 77ab +${pack} +4096 +${ids[5]!.slice(0, 12)} +the payload does not match its sum\n`),
    );
    expect(found.output).toContain('error: 1 damaged place, by which 1 restore point cannot be restored whole');
    expect(found.output).toContain('(DAMAGE_FOUND)\nhint: ');
    expect((await tidemark('restore-point', 'list')).output).toContain('DAMAGED');
    const report = await json<SessionReport>(
      'repository',
      'check',
      'main',
      '--sums',
      '--max-bytes',
      '1GiB',
      '--vm',
      'vm1',
    );
    expect(report).toMatchObject({
      result: 'Failed',
      error: { code: 'DAMAGE_FOUND' },
      session: {
        spec: {
          input: {
            steps: ['check'],
            check: { depth: 'sums', maxBytes: 2 ** 30, vmId: expect.stringMatching(/^2222/) },
          },
        },
      },
    });
  });

  test('a repair says in the catalog, too, which restore points are whole again; a dry one changes nothing', async () => {
    expect(await listed()).toContainEqual(expect.objectContaining({ restorePointId: ids[5], damaged: true }));
    const dry = await json<SessionReport>('repository', 'repair', 'main', '--dry-run');
    expect(dry).toMatchObject({ result: 'Success', outcomes: [{ step: 'repair', dryRun: true }] });
    expect((await listed()).some(({ damaged }) => damaged)).toBe(true);
    const repaired = await json<SessionReport>('repository', 'repair', 'main');
    expect(repaired).toMatchObject({ result: 'Success', outcomes: [{ step: 'repair', dryRun: false }, {}, {}] });
    expect((await listed()).some(({ damaged }) => damaged)).toBe(false);
  });

  test('is watched in a pipe and on a terminal; one maintenance of a repository at a time', async () => {
    let goOn: () => void = () => undefined;
    repository.played.check = async ({ depth }, { onProgress }) => {
      onProgress({ step: 'reading packs', doneBytes: 430, totalBytes: 1000 });
      await new Promise<void>((resolve) => (goOn = resolve));
      const looked = { depth, whole: false, restorePoints: 5, packs: 9, checkedBytes: 430, openPacks: 0 };
      return { ...looked, damages: [], marked: [], healed: [ids[5] as never] };
    };
    const watched = stack.run('repository', 'check', 'main');
    await watched.until(/check reading packs \[#+\.+\] {2}43 % {2}430 B of 1000 B\n/);
    const second = await tidemark('repository', 'prune', 'main');
    expect(second).toMatchObject({
      exitCode: 1,
      errors: expect.stringContaining('maintenance of repository main runs already'),
    });
    const listing = await tidemark('session', 'list', '--open');
    expect(listing.output).toMatch(/maintenance +main +Working/);
    const terminal = stack.onTerminal('session', 'watch', 'latest');
    await terminal.until(/reading packs \[#+\.+\] {2}43 %/);
    goOn();
    expect((await terminal.outcome).exitCode).toBe(0);
    const { exitCode, output } = await watched.outcome;
    expect(exitCode).toBe(0);
    expect(output).toMatch(/looked at all: +no: the next check goes on from there\n {2}whole again: +[0-9a-f]{12}\n/);
    expect((await tidemark('restore-point', 'list')).output).not.toContain('DAMAGED');
  });

  test('stopped, it ends at once and gives its slot back', async () => {
    repository.played.check = (_request, { signal }) =>
      new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)));
    const { sessionId } = await json<{ sessionId: string }>('repository', 'check', 'main', '--detach');
    await waitFor(async () => (await tidemark('session', 'show', sessionId)).output.includes('Working'));
    expect((await tidemark('session', 'stop', sessionId, '--wait')).exitCode).toBe(1);
    expect(await stack.stack.db.selectFrom('leases').selectAll().execute()).toEqual([]);
  });

  test.each([
    [['mian'], 'there is no repository mian in the site; did you mean "main"?'],
    [['main', '--full', '--sums'], 'give either --full or --sums'],
    [['main', '--vm', 'vm2'], 'VM vm2 has no restore point in repository main; did you mean "vm1"?'],
    [['main', '--vm', 'vm1', '--restore-point', 'vm1@latest'], 'give either --vm or --restore-point'],
    [['main', '--offline', '/nowhere'], 'give either the name of a repository or --offline with its folder'],
    [[], 'give either the name of a repository or --offline with its folder'],
    [['main', '--max-bytes', 'lots'], "error: option '--max-bytes <size>' argument 'lots' is invalid. a size is like"],
  ])('%j is a bad request', async (args, message) => {
    const refused = await tidemark('repository', 'check', ...args);
    expect(refused.exitCode).toBe(2);
    expect(refused.errors).toContain(message);
  });
});

describe('figures', () => {
  test('are measured by stats, and remembered by list; a disk that fills up is a warning', async () => {
    repository.space.freeBytes = 40;
    const stats = await tidemark('repository', 'stats', 'main');
    expect(stats.exitCode).toBe(3);
    expect(stats.output).toMatch(
      /^repository main\nrestore points: +6; VMs: 1\n[^]*free: +40 B of 1000 B \(4\.0 %\)\n/,
    );
    expect(stats.output).toMatch(/\nvm1 +6 +6\.0 MiB +3\.0 MiB +1 B\n/);
    expect(stats.errors).toContain('warning: repository main has 40 B (4.0 %) free, less than 5 %');
    const figures = await json<Figures>('repository', 'stats', 'main');
    expect(figures).toMatchObject({
      repository: 'main',
      space: { freeBytes: 40 },
      statistics: { vms: 1 },
      daysUntilFull: null,
    });
    expect(figures.days).toHaveLength(1);
    const list = await tidemark('repository', 'list');
    expect(list).toMatchObject({ exitCode: 0, errors: expect.stringContaining('less than 5 %') });
    // Not what the restore points that are left have newly stored.
    const { storedBytes } = figures.statistics!;
    const row = new RegExp(`^main .* 0 of 4 +\\d+ +${formatBytes(storedBytes)} +40 B`, 'm');
    expect(list.output).toMatch(row);
    const answer = await json<{ repositories: object[] }>('repository', 'list');
    expect(answer.repositories).toMatchObject([{ storedBytes, statisticsAt: figures.statisticsAt }]);
    expect(list.output).toMatch(/FREE +FULL IN +FOLDER\nmain .* 40 B \(4\.0 %\) +- +\//);
    // Sessions say it, too.
    stack.sessions.plays.set('web', { do: 'end' });
    const backup = await tidemark('job', 'run', 'webs');
    expect(backup.output).toContain('repository main has 40 B (4.0 %) free, less than 5 %');
  });
});

test('what was begun and is not sealed is listed, and aborted when no workflow has its run key', async () => {
  const { openPoint } = verbsOf(() => repository.world);
  const { restorePointId: id, run } = await openPoint(77);
  // Its owner is not in the catalog: only its search attribute says that it goes on.
  const attribute = defineSearchAttributeKey(searchAttributeNames.runKey, 'KEYWORD');
  const owner = await stack.sessions.client.workflow.start('vmBackup', {
    workflowId: 'nobody-works-on-it',
    taskQueue: 'nowhere',
    typedSearchAttributes: [{ key: attribute, value: run }],
  });
  const open = await tidemark('repository', 'open-points', 'main');
  expect(open.output).toContain('open restore points: 1\n');
  expect(open.output).toMatch(new RegExp(`${id.slice(0, 12)} +vm1 +${run} .* its session`));
  const refused = await json<SessionReport>('repository', 'open-points', 'main', '--abort', id);
  expect(refused.error).toMatchObject({ code: 'ALREADY_RUNNING', message: expect.stringContaining(run) });
  expect(repository.world.repository.listOpen()).toHaveLength(1);
  await owner.terminate();
  await waitFor(async () => (await tidemark('repository', 'open-points', 'main')).output.includes('nobody\n'));
  const aborted = await tidemark('repository', 'open-points', 'main', '--abort', id.slice(0, 8));
  expect(aborted).toMatchObject({
    exitCode: 0,
    output: expect.stringContaining(`restore point ${id.slice(0, 12)} was aborted\nopen restore points: 0`),
  });
  expect(repository.world.repository.listOpen()).toEqual([]);
  expect((await tidemark('repository', 'open-points', 'main', '--abort', 'x')).exitCode).toBe(2);
});

test('clocks that were set ahead, and put right again: it is said in plain words, and taken back by order', async () => {
  repository.space.freeBytes = 500;
  const { clocks, repository: real } = repository.world;
  const sound = { ...clocks };
  repository.world.pass(5 * 366 * DAY_MS);
  await real.readTime();
  Object.assign(clocks, sound);
  const today = new Date(clocks.host).toISOString().slice(0, 10);
  const { doubt, nowMs } = await real.readTime();
  time = { at: new Date(nowMs!).toISOString(), doubt };
  const words =
    /repository time is 2031-\S+, 5 years ahead of the clocks, which show 2026-\S+: nothing is removed until/;
  const stats = await tidemark('repository', 'stats', 'main');
  expect(stats).toMatchObject({ exitCode: 3, errors: expect.stringMatching(words) });
  expect(stats.output).toMatch(/\ntime: +stands still: repository time is 2031-/);
  expect((await tidemark('repository', 'list')).errors).toMatch(words);

  const unsure = await tidemark('repository', 'reset-clock', 'main', '--today', '2026-01-01');
  expect(unsure).toMatchObject({ exitCode: 1, output: expect.stringContaining('and not 2026-01-01') });
  expect((await tidemark('repository', 'reset-clock', 'main')).exitCode).toBe(2);
  time = { at: sound.host.toString(), doubt: null };
  const reset = await json<SessionReport>('repository', 'reset-clock', 'main', '--today', today);
  const at = new Date(sound.host).toISOString();
  expect(reset).toMatchObject({ result: 'Success', outcomes: [{ step: 'reset-clock', reset: { to: at } }, {}] });
  expect(await real.readTime()).toMatchObject({ nowMs: sound.host, doubt: null });
  expect((await tidemark('repository', 'list')).errors).toBe('');
  const again = await tidemark('repository', 'reset-clock', 'main', '--today', today);
  expect(again).toMatchObject({ exitCode: 0, output: expect.stringContaining('nothing was changed') });
});

describe('without a stack', () => {
  test('a folder that is no repository, or that somebody has open, is refused and not touched', async () => {
    const folder = path.join(stack.folder, 'empty');
    await mkdir(folder);
    const none = await tidemark('repository', 'stats', '--offline', folder);
    expect(none).toMatchObject({ exitCode: 2, errors: expect.stringContaining('is not a repository') });
    await writeFile(path.join(folder, 'x'), '');
    const open = await tidemark('repository', 'check', '--offline', repository.world.folder);
    expect(open).toMatchObject({ exitCode: 2, errors: expect.stringMatching(/owns the repository/) });
    const copy = path.join(stack.folder, 'copy');
    await mkdir(copy);
    await copyFile(path.join(repository.world.folder, 'repository.json'), path.join(copy, 'repository.json'));
    const keyed = await tidemark(
      'repository',
      'check',
      '--offline',
      copy,
      '--key-file',
      '/a',
      '--passphrase-file',
      '/b',
    );
    expect(keyed).toMatchObject({ exitCode: 2, errors: expect.stringContaining('give one of') });
    await rm(copy, { recursive: true });
  });
});
