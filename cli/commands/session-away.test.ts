/** A session is watched while what it is seen through dies and comes back. */
import { readFile, rm } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { closeAbandonedSession, listSessions, loadSession } from '../../schema/catalog/sessions.ts';
import { beat, end, type PlayedStack, startPlayedStack, waitFor } from '../../tests/fixtures/cli/played-stack.ts';

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

describe('what is away is said, and waited for', () => {
  test('the control worker', async () => {
    sessions.plays.set('files', beat(300));
    const command = played.run('job', 'run', 'nightly');
    await command.until('30 %');
    await sessions.stopWorker();
    await command.until('warning: the control worker does not answer; the steps shown may be old');
    await sessions.startWorker();
    await command.until('all answers again');
    sessions.plays.set('files', end);
    expect((await command.outcome).exitCode).toBe(0);
  });

  test('Temporal, killed and started again on its file', async () => {
    sessions.plays.set('files', beat(300));
    const command = played.run('job', 'run', 'nightly');
    await command.until('30 %');
    await played.temporal.kill();
    await command.until('warning: Temporal does not answer; the last known state is shown');
    await played.temporal.start();
    await command.until('all answers again');
    sessions.plays.set('files', end);
    expect((await command.outcome).exitCode).toBe(0);
  });

  test('the catalog', async () => {
    const { database } = JSON.parse(await readFile(stack.layout.stackFile, 'utf8')) as { database: { socket: string } };
    const door = await openDoor(path.join(played.folder, 'db.sock'), database.socket);
    stack.change({
      database: { ...(database as never as object), socket: path.join(played.folder, 'db.sock') } as never,
    });
    sessions.plays.set('files', beat(300));
    const command = played.run('job', 'run', 'nightly');
    await command.until('30 %');
    await door.shut();
    await command.until('warning: the catalog does not answer; the last known state is shown');
    const away = await stack.tidemark('session', 'list');
    expect(away).toMatchObject({
      exitCode: 4,
      errors: expect.stringMatching(/^error: the catalog does not answer at /),
    });
    await door.open();
    await command.until('all answers again');
    // It ends while nobody can read how: that is waited for, and not made up.
    await door.shut();
    const [session] = await listSessions(stack.db, { open: true, limit: 1 });
    sessions.plays.set('files', end);
    await waitFor(async () => (await loadSession(stack.db, session!.sessionId))?.state === 'Stopped');
    await sessions.client.workflow.getHandle(session!.workflowId).result();
    await sleep(4000);
    await door.open();
    const { exitCode, output } = await command.outcome;
    expect({ exitCode, output }).toMatchObject({ exitCode: 0, output: expect.stringContaining('Stopped, Success') });
    await door.shut();
    stack.change({ database: database as never });
  });

  test('a workflow that was terminated', async () => {
    const command = played.run('job', 'run', 'nightly', '--json');
    await waitFor(async () =>
      (await stack.tidemark('session', 'list', '--open', '--json')).output.includes('"Working"'),
    );
    const { sessions: open } = JSON.parse((await stack.tidemark('session', 'list', '--open', '--json')).output) as {
      sessions: { workflowId: string }[];
    };
    await sessions.client.workflow.getHandle(open[0]!.workflowId).terminate('by the test');
    const { exitCode, output } = await command.outcome;
    expect(exitCode).toBe(1);
    expect(JSON.parse(output)).toMatchObject({
      result: 'Failed',
      error: { code: 'BUG', message: expect.stringMatching(/closed \(TERMINATED\).*by the test/) },
    });
    sessions.plays.set('files', end);
    // It stands in nobody's way.
    expect((await stack.tidemark('job', 'run', 'nightly')).exitCode).toBe(0);
  });

  test('Temporal that does not know the session any more: that is said, by watching and by stopping', async () => {
    const detached = await stack.tidemark('job', 'run', 'nightly', '--detach', '--json');
    const { sessionId } = JSON.parse(detached.output) as { sessionId: string };
    await waitFor(async () => (await loadSession(stack.db, sessionId))?.state === 'Working');
    const { workflowId } = (await loadSession(stack.db, sessionId))!;
    const handle = sessions.client.workflow.getHandle(workflowId);
    await handle.terminate('by the test');
    await sessions.client.workflowService.deleteWorkflowExecution({
      namespace: 'tidemark',
      workflowExecution: { workflowId },
    });
    await waitFor(() =>
      handle.describe().then(
        () => false,
        () => true,
      ),
    );
    const command = played.run('session', 'watch', sessionId);
    await command.until('warning: Temporal does not know the session any more; it is closed as failed within');
    expect(await stack.tidemark('session', 'stop', sessionId)).toMatchObject({
      exitCode: 0,
      output: expect.stringContaining(`session ${sessionId} is not running: Temporal does not know it any more`),
    });
    const error = { code: 'STOPPED', message: 'not known any more', hint: '' } as const;
    await closeAbandonedSession(stack.db, sessionId, { endedAt: new Date().toISOString(), error });
    expect(await command.outcome).toMatchObject({ exitCode: 1, output: expect.stringContaining('not known any more') });
  });

  test('Temporal from the beginning', async () => {
    stack.change({ temporal: { address: '127.0.0.1:1', namespace: 'tidemark', uiUrl: 'http://x', codecUrl: null } });
    const { exitCode, errors } = await stack.tidemark('job', 'run', 'nightly');
    stack.change({
      temporal: { address: played.temporal.address, namespace: 'tidemark', uiUrl: 'http://x', codecUrl: null },
    });
    expect(exitCode).toBe(4);
    expect(errors).toMatch(/^error: Temporal does not answer at 127\.0\.0\.1:1\nhint: /);
  });
});

/** A socket that leads to another one, and can be shut. */
async function openDoor(from: string, to: string) {
  let server: net.Server | null = null;
  const open = new Set<net.Socket>();
  const door = {
    async open() {
      server = net.createServer((socket) => {
        const onward = net.connect(to);
        for (const end of [socket, onward]) {
          open.add(end);
          end.on('error', () => undefined);
          end.on('close', () => {
            open.delete(end);
            socket.destroy();
            onward.destroy();
          });
        }
        socket.pipe(onward).pipe(socket);
      });
      server.listen(from);
      await new Promise((resolve) => server!.once('listening', resolve));
    },
    async shut() {
      server?.close();
      for (const socket of open) socket.destroy();
      await rm(from, { force: true });
    },
  };
  await door.open();
  return door;
}
