/** Restores and lists through the command line; on a real catalog and a real Temporal server. */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { recordTestPoint } from '../../tests/fixtures/cli/restore-points.ts';
import type { SessionReport } from '../follow-session.ts';
import { beat, end, type PlayedStack, startPlayedStack } from '../../tests/fixtures/cli/played-stack.ts';

let played: PlayedStack;
let stack: PlayedStack['stack'];
let sessions: PlayedStack['sessions'];
let folder: string;
beforeAll(async () => {
  played = await startPlayedStack();
  ({ stack, sessions, folder } = played);
});
afterAll(async () => played?.close());
beforeEach(() => {
  sessions.plays.clear();
});

describe('restores', () => {
  test('to files, from the newest restore point of a VM, watched to the end', async () => {
    const id = await recordTestPoint(stack.db, { vmName: 'files', disks: ['d0', 'd1'] });
    sessions.plays.set('d0', beat(100));
    sessions.plays.set('d1', end);
    const command = played.run('restore', 'vm', 'files@latest', '--into', folder);
    await command.until(/files d0 .* 10 % .*received 50 B, written 7 B/);
    sessions.plays.set('d0', end);
    const { exitCode, output } = await command.outcome;
    expect(exitCode).toBe(0);
    expect(output).toContain(`\nd0    box      p1     1000 B      60 B     50 B  source 90%  ${folder}/files-d0.raw\n`);
    expect(output).toContain('\nbottleneck: source 90% (Source 90% > Network 2% > Proxy 5% > Target 3%)\n');
    expect(output).toContain(`${folder}/files-d1.raw`);
    const one = await stack.tidemark(
      'restore',
      'disk',
      id.slice(0, 6),
      'd1',
      '--into',
      folder,
      '--format',
      'qcow2',
      '--name',
      'old',
      '--json',
    );
    expect(one.exitCode).toBe(0);
    const { files, result, bottleneck } = JSON.parse(one.output) as SessionReport;
    const stages = { source: 90, proxy: 5, throttling: 0, network: 2, target: 3 };
    const waits = { busy: 5, waitsForInput: 92, waitsForOutput: 3 };
    expect(bottleneck).toMatchObject({ bottleneck: 'source', stagesMs: stages, shares: { proxy: waits } });
    expect({ files, result }).toEqual({
      result: 'Success',
      files: [
        {
          diskKey: 'd1',
          file: `${folder}/old-d1.qcow2`,
          proxyId: 'p1',
          machineId: 'box',
          sizeBytes: 1000,
          receivedBytes: 60,
          writtenBytes: 50,
          stages,
        },
      ],
    });
    const detached = await stack.tidemark('restore', 'disk', id, 'd1', '--into', folder, '--name', 'third', '--detach');
    expect(detached).toMatchObject({ exitCode: 0, errors: expect.stringMatching(/^session \S+ goes on\n/) });
    expect((await stack.tidemark('session', 'watch', 'latest')).exitCode).toBe(0);
    expect((await stack.tidemark('session', 'show', 'latest')).output).toContain(`${folder}/third-d1.raw`);
  });

  test("a file here is in nobody's way when the restore is written on another machine", async () => {
    const id = await recordTestPoint(stack.db, { vmName: 'far', disks: ['d0'] });
    await writeFile(path.join(folder, 'far-d0.raw'), 'mine');
    await stack.db.updateTable('proxies').set({ machine_id: 'other' }).execute();
    sessions.plays.set('d0', end);
    const { exitCode, output } = await stack.tidemark('restore', 'vm', id, '--into', folder);
    await stack.db.updateTable('proxies').set({ machine_id: 'box' }).execute();
    expect({ exitCode, output }).toMatchObject({ exitCode: 0, output: expect.stringMatching(/\nd0 +other +p1 /) });
    expect(output).not.toContain('HOST');
  });

  test('what cannot be is told before anything is started', async () => {
    const id = await recordTestPoint(stack.db, { vmName: 'mail', disks: ['d0'] });
    await writeFile(path.join(folder, 'mail-d0.raw'), 'mine');
    const before = (JSON.parse((await stack.tidemark('session', 'list', '--json')).output) as { sessions: unknown[] })
      .sessions.length;
    const into = ['--into', folder];
    // What else `planRestore` refuses, its own tests tell.
    const cases: [string[], RegExp][] = [
      [['vm', '0000', ...into], /^error: there is no restore point 0000\nhint: List the restore points/],
      [['vm', 'mial@latest', ...into], /^error: VM mial has no restore point; did you mean "mail"\?/],
      [['vm', 'mail', ...into], /^error: expected a restore point's id, .* or <vm>@latest, found "mail"/],
      [['disk', id, 'd7', ...into], /^error: restore point \S+ has no disk d7; it has d0/],
      [['vm', id, '--into', '/x'], new RegExp(`^error: no proxy allows restores into /x \\(allowed: ${folder}\\)`)],
      [['vm', id, ...into, '--format', 'vhd'], /Allowed choices are raw, qcow2/],
      [['vm', id, ...into], new RegExp(`^error: ${folder}/mail-d0\\.raw is there already\nhint: Choose another name`)],
    ];
    for (const [args, said] of cases) {
      const outcome = await stack.tidemark('restore', ...args);
      expect(outcome).toMatchObject({ exitCode: 2, output: '', errors: expect.stringMatching(said) });
    }
    const after = (JSON.parse((await stack.tidemark('session', 'list', '--json')).output) as { sessions: unknown[] })
      .sessions.length;
    expect(after).toBe(before);
  });
});

describe('of a repository that was removed', () => {
  test('nothing is restored or changed: it is told at once, with the folder to write back', async () => {
    const id = await recordTestPoint(stack.db, { vmName: 'left', disks: ['d0'] });
    const setState = (state: 'active' | 'removed') => stack.db.updateTable('repositories').set({ state }).execute();
    await setState('removed');
    const message = `repository main is not in the site: it had the folder ${folder}/repository on machine box`;
    for (const args of [
      ['restore-point', 'keep', 'left@latest'],
      ['restore-point', 'remove', id, '--last'],
      ['restore', 'vm', id, '--into', folder],
    ]) {
      const refused = await stack.tidemark(...args, '--json');
      expect(refused.exitCode).toBe(2);
      const details = { repository: 'main', folder: `${folder}/repository` };
      expect(JSON.parse(refused.output)).toMatchObject({ error: { code: 'RESOURCE_REMOVED', message, details } });
    }
    await setState('active');
  });
});

describe('lists', () => {
  test('a filter that nothing has is empty; one that nobody knows is a mistake', async () => {
    await recordTestPoint(stack.db, { vmName: 'mirror', disks: ['d0'] });
    for (const args of [
      ['restore-point', 'list', '--vm', 'warned'],
      ['restore-point', 'list', '--job', 'weekly', '--repository', 'main'],
      ['restore-point', 'list', '--removed', '--vm', 'mirror'],
      ['session', 'list', '--job', 'webs'],
    ])
      expect(await stack.tidemark(...args)).toMatchObject({
        exitCode: 0,
        output: expect.stringMatching(/^no (restore points|sessions)\n$/),
      });
    const mistakes: [string[], string][] = [
      [['restore-point', 'list', '--vm', 'mirorr'], 'there is no VM mirorr; did you mean "mirror"?'],
      [['restore-point', 'list', '--job', 'nihgtly'], 'there is no job nihgtly; did you mean "nightly"?'],
      [['restore-point', 'list', '--repository', 'mian'], 'there is no repository mian; did you mean "main"?'],
      [['session', 'list', '--job', 'nope'], 'there is no job nope'],
    ];
    for (const [args, message] of mistakes) {
      const refused = await stack.tidemark(...args, '--json');
      expect(refused.exitCode).toBe(2);
      expect(JSON.parse(refused.output)).toMatchObject({ error: { code: 'NOT_FOUND', message } });
    }
  });

  test('of everything, for people and as JSON', async () => {
    const id = await recordTestPoint(stack.db, { vmName: 'list me', disks: ['d0'] });
    const lists: [string[], RegExp, string][] = [
      [['job', 'list'], /^JOB +VMS +REPOSITORY +LAST +STARTED +SESSION\nnightly +1 +main /, 'jobs'],
      [
        ['session', 'list', '--limit', '3'],
        /^SESSION +KIND +OF +STATE +RESULT +STARTED +TOOK\n(?:.*\n){3}$/,
        'sessions',
      ],
      [
        ['host', 'list'],
        /^HOST +MACHINE +STATE +SLOTS USED +PROVIDER\nh1 +box +active +0 of 4 +simulated\n\nVM +HOST +POWER/,
        'hosts',
      ],
      [['proxy', 'list'], /^PROXY .*RESTORES INTO\np1 +box +active +0 of 2 +2 +\//, 'proxies'],
      [['repository', 'list'], /^REPOSITORY .*\nmain +box +active +0 of 4 +\d+ +- +.*repository\n/, 'repositories'],
      [
        ['restore-point', 'list', '--vm', 'list me'],
        new RegExp(`^RESTORE POINT .*\n${id.slice(0, 12)} +list me `),
        'restorePoints',
      ],
    ];
    for (const [args, said, key] of lists) {
      const people = await stack.tidemark(...args);
      expect(people).toMatchObject({ exitCode: 0, errors: '', output: expect.stringMatching(said) });
      const json = await stack.tidemark(...args, '--json');
      expect((JSON.parse(json.output) as Record<string, unknown[]>)[key]!.length).toBeGreaterThan(0);
    }
    const job = await stack.tidemark('job', 'show', 'weekly');
    expect(job.output).toMatch(/consistency: +prefer\n[^]*VM +HOST +LEFT OUT +ID\nfiles +h1 /);
    const point = await stack.tidemark('restore-point', 'show', id.slice(0, 8));
    expect(point.output).toMatch(/^restore point [0-9a-f]{32}\n {2}VM: +list me on h1[^]*\nd0 +full +1000 B /);
    expect(JSON.parse((await stack.tidemark('restore-point', 'show', id, '--json')).output)).toMatchObject({
      restorePointId: id,
    });
  });
});
