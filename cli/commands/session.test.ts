/** Sessions through the command line: started, watched, stopped; on a real catalog and a real Temporal server. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { loadSession } from '../../schema/catalog/sessions.ts';
import type { SessionReport } from '../follow-session.ts';
import {
  beat,
  end,
  type PlayedStack,
  sessionIn,
  startPlayedStack,
  waitFor,
} from '../../tests/fixtures/cli/played-stack.ts';

let played: PlayedStack;
let stack: PlayedStack['stack'];
let sessions: PlayedStack['sessions'];
beforeAll(async () => {
  played = await startPlayedStack();
  ({ stack, sessions } = played);
});
afterAll(async () => played?.close());
beforeEach(() => {
  sessions.plays.clear();
});

describe('job run', () => {
  test('shows the session in plain lines until it ends, and reports', async () => {
    const reason = { code: 'busy', message: 'position 2: repository main has 4 of 4 tasks' };
    sessions.plays.set('wait files', { do: 'hold', heartbeat: { position: 2, reason } });
    const command = played.run('job', 'run', 'nightly');
    const id = await sessionIn(command);
    await command.until('files: waiting (position 2: repository main has 4 of 4 tasks)');
    sessions.plays.set('files', beat(425, 'target'));
    sessions.plays.set('wait files', end);
    await command.until(
      /files d0 \[#+\.+\] {2}42 % {2}425 B of 1000 B, read 21\d B, sent 7 B, 2\.0 KiB\/s, waits for target/,
    );
    sessions.plays.set('files', end);
    const { exitCode, output, errors } = await command.outcome;
    expect(errors).toBe('');
    expect(exitCode).toBe(0);
    expect(output).toMatch(/\nfiles: Success\n/);
    expect(output).toContain(`session ${id}: backup of job nightly\nstate:   Stopped, Success\n`);
    expect(output).toMatch(
      /\nVM +DISK +READ BY +READ +SENT +AUDIT +PROXY +BOTTLENECK +WHY\nfiles +d0 +full +700 B +350 B +64 blocks +- +source 90% +first restore point of this VM\n/,
    );
    expect(output).toMatch(/\nfiles +d0 +1000 B +100 B +200 B +0 B +0 B +300 B +400 B\n/);
    expect(output).toMatch(
      /\nTemporal UI: http:\S+\/workflows\/backup-session%2Fnightly%2F\S+\/[0-9a-f-]{36}\/history\n$/,
    );
  });

  test('a pipe gets each line once', async () => {
    sessions.plays.set('files', beat(100));
    const command = played.run('job', 'run', 'nightly');
    await command.until('10 %');
    for (const done of [120, 150, 200]) {
      sessions.plays.set('files', beat(done));
      await sleep(150);
    }
    await command.until('20 %');
    sessions.plays.set('files', end);
    const lines = (await command.outcome).output.split('\n');
    const told = lines.slice(0, lines.indexOf(''));
    expect(new Set(told).size).toBe(told.length);
    expect(told.filter((line) => line.startsWith('files d0')).length).toBeLessThanOrEqual(4);
  });

  test('a warning is exit code 3, a failure 1 with what to do; --json is one object', async () => {
    sessions.plays.set('files', end);
    sessions.plays.set('warned', end);
    const warned = await stack.tidemark('job', 'run', 'weekly', '--json');
    expect(warned).toMatchObject({ exitCode: 3, errors: '' });
    const report = JSON.parse(warned.output) as SessionReport;
    expect(report).toMatchObject({
      result: 'Warning',
      error: null,
      files: [],
      events: [{ level: 'warning', code: 'GUEST_UNREACHABLE' }],
    });
    expect(report.session!.vms.map(({ name, result, consistency }) => [name, result, consistency])).toEqual([
      ['files', 'Success', 'filesystem'],
      ['warned', 'Warning', 'crash'],
    ]);
    expect(report.session!.vms[0]!.disks[0]!.conservation).toMatchObject({ sizeBytes: 1000, storedBytes: 400 });
    sessions.plays.set('files', { do: 'fail' });
    const failed = await stack.tidemark('job', 'run', 'nightly');
    expect(failed.exitCode).toBe(1);
    expect(failed.output).toContain(
      'error: files: the monitor refused (HYPERVISOR_ERROR)\nhint: Read the hypervisor message.\n',
    );
    // It is told once, though it is an event too.
    expect(failed.output.match(/the monitor refused \(HYPERVISOR_ERROR\)/g)).toHaveLength(1);
    const shown = await stack.tidemark('session', 'show', report.sessionId, '--json');
    expect(JSON.parse(shown.output)).toMatchObject({
      sessionId: report.sessionId,
      result: 'Warning',
      session: report.session,
      bottleneck: {
        bottleneck: 'source',
        stagesMs: { source: 180, target: 6 },
        shares: { proxy: { busy: 5, waitsForInput: 90, waitsForOutput: 5 } },
      },
    });
    const read = await stack.tidemark('session', 'show', report.sessionId);
    expect(read.output).toContain('bottleneck: source 90% (Source 90% > Proxy 5% > Network 2% > Target 3%)');
    expect(read.output).toMatch(/BOTTLENECK.*\n.*source 90%/);
  });

  test('an unknown job, and one that runs: told before anything is started', async () => {
    const unknown = await stack.tidemark('job', 'run', 'nigthly');
    expect(unknown.exitCode).toBe(2);
    expect(unknown.errors).toMatch(/^error: there is no job nigthly; did you mean "nightly"\?\nhint: List the jobs/);
    const command = played.run('job', 'run', 'nightly');
    const id = await sessionIn(command);
    const second = await stack.tidemark('job', 'run', 'nightly');
    expect(second.exitCode).toBe(1);
    expect(second.errors).toMatch(new RegExp(`^error: job nightly runs already: session ${id}, since `));
    sessions.plays.set('files', end);
    expect((await command.outcome).exitCode).toBe(0);
    // What the server lists follows what it knows by a moment.
    const query = 'WorkflowType = "backupSession" AND ExecutionStatus = "Running"';
    await waitFor(async () => (await sessions.client.workflow.count(query)).count === 0);
  });

  test('what the session finds out by itself, before it has rows, is its error', async () => {
    const held = played.run('job', 'run', 'webs', '--detach');
    expect((await held.outcome).exitCode).toBe(0);
    await held.until('goes on');
    // The row of the running session is not there yet for a command that was quicker: as if two people started at once.
    const id = /session (\S+) goes on/.exec(held.said())![1]!;
    await waitFor(async () => (await loadSession(stack.db, id))?.state === 'Working');
    await stack.db.updateTable('sessions').set({ state: 'Stopped' }).where('session_id', '=', id).execute();
    const raced = played.run('job', 'run', 'webs');
    await sleep(0);
    await stack.db.updateTable('sessions').set({ state: 'Working' }).where('session_id', '=', id).execute();
    const outcome = await raced.outcome;
    // Either this command saw it in time, or its session did: the answer is the same.
    expect(outcome.exitCode).toBe(1);
    expect(outcome.output + outcome.errors).toMatch(new RegExp(`error: .*${id}`));
    sessions.plays.set('web', end);
    await stack.tidemark('session', 'watch', id);
  });
});

describe('whoever watches may go', () => {
  test('SIGINT in a pipe detaches, says how to stop, and the session goes on', async () => {
    const command = played.run('job', 'run', 'nightly');
    const id = await sessionIn(command);
    command.child.kill('SIGINT');
    const { exitCode, errors } = await command.outcome;
    expect(exitCode).toBe(130);
    expect(errors).toBe(
      `session ${id} goes on\nwatch it: tidemark session watch ${id}\nstop it:  tidemark session stop ${id}\n`,
    );
    const watching = played.run('session', 'watch', id.slice(0, -2));
    await watching.until(`session ${id}: Working`);
    sessions.plays.set('files', end);
    expect((await watching.outcome).exitCode).toBe(0);
    // Watching what has ended shows how it ended.
    const again = await stack.tidemark('session', 'watch', 'nightly@latest');
    expect(again).toMatchObject({ exitCode: 0, output: expect.stringContaining('Stopped, Success') });
  });

  test('a reader that goes away is no error of the session', async () => {
    const command = played.run('job', 'run', 'nightly');
    const id = await sessionIn(command);
    command.child.stdout!.destroy();
    sessions.plays.set('files', end);
    expect((await command.outcome).exitCode).toBe(130);
    await waitFor(async () => (await loadSession(stack.db, id))?.result === 'Success');
  });

  test('when the stack is stopped, the watching ends and says that the session does not', async () => {
    const command = played.run('job', 'run', 'nightly');
    const id = await sessionIn(command);
    stack.change({ state: 'stopping' });
    const { exitCode, errors } = await command.outcome;
    stack.change({ state: 'running' });
    expect(exitCode).toBe(4);
    expect(errors).toContain(
      `error: the stack was stopped while session ${id} was in work; the session goes on when it runs again\n`,
    );
    sessions.plays.set('files', end);
    expect((await stack.tidemark('session', 'watch', id)).exitCode).toBe(0);
  });
});

describe('on a terminal', () => {
  test('Ctrl-C asks: continue, or stop; the picture is repainted in place', async () => {
    sessions.plays.set('files', beat(500));
    const terminal = played.onTerminal('job', 'run', 'nightly');
    await terminal.until('50 %');
    await terminal.until('\u001b[');
    terminal.child.stdin!.write('\u0003');
    await terminal.until('[d]etach, [s]top it, stop [g]racefully, or [c]ontinue watching?');
    terminal.forget();
    terminal.child.stdin!.write('what\rc\r');
    await terminal.until('50 %');
    terminal.forget();
    terminal.child.stdin!.write('\u0003');
    await terminal.until('[s]top it');
    terminal.child.stdin!.write('s\r');
    await terminal.until('asked it to stop');
    const { exitCode } = await terminal.outcome;
    expect(exitCode).toBe(1);
    expect(terminal.said()).toContain('the session was stopped (STOPPED)');
  });

  test('a second Ctrl-C detaches at once', async () => {
    const terminal = played.onTerminal('job', 'run', 'nightly');
    const id = (await terminal.until(/session (\S+): Working/))[1]!;
    terminal.child.stdin!.write('\u0003');
    await terminal.until('[d]etach');
    terminal.child.stdin!.write('\u0003');
    const { exitCode } = await terminal.outcome;
    expect(exitCode).toBe(130);
    expect(terminal.said()).toContain(`session ${id} goes on`);
    sessions.plays.set('files', end);
    expect((await stack.tidemark('session', 'watch', id)).exitCode).toBe(0);
  });

  test('a session that ends while the question is open ends the question', async () => {
    const terminal = played.onTerminal('job', 'run', 'nightly');
    await terminal.until(/session (\S+): Working/);
    terminal.child.stdin!.write('\u0003');
    await terminal.until('[d]etach');
    sessions.plays.set('files', end);
    expect((await terminal.outcome).exitCode).toBe(0);
    expect(terminal.said()).toContain('Stopped, Success');
  });
});

describe('session stop', () => {
  test('at once: cancelled, and failed with STOPPED', async () => {
    const command = played.run('job', 'run', 'nightly');
    const id = await sessionIn(command);
    expect(await stack.tidemark('session', 'stop', id)).toMatchObject({
      exitCode: 0,
      output: `asked session ${id} to stop\n`,
    });
    const { exitCode, output } = await command.outcome;
    expect(exitCode).toBe(1);
    expect(output).toContain('error: files: the session was stopped (STOPPED)\nhint: ');
    const ended = await stack.tidemark('session', 'stop', id);
    expect(ended).toMatchObject({ exitCode: 0, output: `session ${id} has ended: Failed\n` });
    const waited = await stack.tidemark('session', 'stop', id, '--wait', '--json');
    expect(waited.exitCode).toBe(1);
    expect(JSON.parse(waited.output)).toMatchObject({ sessionId: id, result: 'Failed', error: { code: 'STOPPED' } });
  });

  test('gracefully: the VMs in work finish; --wait shows it', async () => {
    const detached = await stack.tidemark('job', 'run', 'nightly', '--detach', '--json');
    const { sessionId } = JSON.parse(detached.output) as { sessionId: string };
    await waitFor(async () => (await loadSession(stack.db, sessionId))?.state === 'Working');
    const stopping = played.run('session', 'stop', sessionId, '--graceful', '--wait');
    await stopping.until('Working');
    sessions.plays.set('files', end);
    expect((await stopping.outcome).exitCode).toBe(0);
    expect((await loadSession(stack.db, sessionId))?.error?.message).toBe('stopped gracefully');
  });

  test('names that fit nothing or several', async () => {
    const none = await stack.tidemark('session', 'show', 'never');
    expect(none).toMatchObject({ exitCode: 2, errors: expect.stringMatching(/^error: there is no session never\n/) });
    const several = await stack.tidemark('session', 'stop', String(new Date().getUTCFullYear()));
    expect(several).toMatchObject({
      exitCode: 2,
      errors: expect.stringMatching(/^error: several sessions begin with 20/),
    });
  });
});
