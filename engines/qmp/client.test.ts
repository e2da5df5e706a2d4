import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { MonitorEvent } from '../../schema/domain/seams.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { endStorageDaemon, startStorageDaemon } from '../hypervisors/storage-daemon.ts';
import { connectQmp, type QmpConnection } from './client.ts';

const { clock } = testSeams();
let folder: string;
const open: QmpConnection[] = [];
const connect = async (socket: string, onEvent?: (event: MonitorEvent) => void): Promise<QmpConnection> => {
  const now = (): number => 42;
  const connection = await connectQmp({
    socket,
    owner: 'vm v1',
    details: { vm: 'v1' },
    now,
    ...(onEvent ? { onEvent } : {}),
  });
  open.push(connection);
  return connection;
};

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-qmp-'));
});
afterEach(async () => {
  for (const connection of open.splice(0)) connection.close();
  await endStorageDaemon(folder, clock);
  await rm(folder, { recursive: true });
});

/** A monitor that answers each command with the lines of `answers`, in one piece. */
async function serve(answers: (id: number, command: string) => string[]): Promise<{ socket: string; end: () => void }> {
  const socket = join(folder, 'fake.sock');
  const server = net.createServer((connection) => {
    connection.write('{"QMP":{}}\n');
    connection.on('data', (data) => {
      for (const line of data.toString().split('\n').filter(Boolean)) {
        const { id, execute } = JSON.parse(line) as { id: number; execute: string };
        if (execute === 'qmp_capabilities') connection.write(`{"return":{},"id":${id}}\n`);
        else if (execute === 'die') connection.destroy();
        else connection.write(`${answers(id, execute).join('\n')}\n`);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  return { socket, end: () => server.close() };
}

test('a real monitor: answers, refusals with class and description, events, its end', async () => {
  const daemon = await startStorageDaemon({ folder, blockdevs: [], exports: [], maxConnections: 1 });
  const events: MonitorEvent[] = [];
  const monitor = await connect(daemon.monitorSocket, (event) => events.push(event));
  await monitor.execute('blockdev-add', { driver: 'null-co', 'node-name': 'n0', size: 65536 });
  const nodes = await monitor.execute<{ 'node-name': string }[]>('query-named-block-nodes', { flat: true });
  expect(nodes.map((node) => node['node-name'])).toEqual(['n0']);
  await expect(monitor.execute('blockdev-del', { 'node-name': 'n1' })).rejects.toMatchObject({
    code: 'HYPERVISOR_ERROR',
    message: "vm v1 refused blockdev-del: Failed to find node with node-name='n1'",
    details: { vm: 'v1', command: 'blockdev-del', class: 'GenericError', socket: daemon.monitorSocket },
  });
  await monitor.execute('block-export-add', { type: 'nbd', id: 'e0', 'node-name': 'n0', name: 'n0' });
  await monitor.execute('block-export-del', { id: 'e0', mode: 'hard' });
  await expect
    .poll(() => events)
    .toEqual([expect.objectContaining({ event: 'BLOCK_EXPORT_DELETED', data: { id: 'e0' }, atMs: 42 })]);
  await monitor.execute('quit').catch(() => undefined);
  await monitor.closed;
  await expect(monitor.execute('query-jobs')).rejects.toMatchObject({ code: 'UNREACHABLE' });
});

test('replies find their caller whatever their order', async () => {
  const held: string[] = [];
  const { socket, end } = await serve((id, command) => {
    held.unshift(`{"return":"${command}","id":${id}}`);
    return held.length < 3 ? ['{"event":"STOP","data":{}}'] : held;
  });
  const monitor = await connect(socket);
  const asked = ['a', 'b', 'c'].map((command) => monitor.execute(command));
  expect(await Promise.all(asked)).toEqual(['a', 'b', 'c']);
  end();
});

test('whoever waits is told when the connection is lost or breaks the protocol', async () => {
  const { socket, end } = await serve(() => ['no json']);
  const waiting = await connect(socket);
  const asked = [waiting.execute('die'), waiting.execute('query-status')];
  for (const each of asked) await expect(each).rejects.toMatchObject({ code: 'UNREACHABLE' });
  await expect((await connect(socket)).execute('x')).rejects.toMatchObject({ code: 'UNREACHABLE' });
  end();
});

test('a monitor nobody listens on is that of a VM that is off', async () => {
  await expect(connect(join(folder, 'none.sock'))).rejects.toMatchObject({
    code: 'VM_OFF',
    message: `vm v1 is off: nobody listens on its monitor ${join(folder, 'none.sock')}`,
  });
});

test('a monitor that serves somebody else is busy', async () => {
  const daemon = await startStorageDaemon({ folder, blockdevs: [], exports: [], maxConnections: 1 });
  await connect(daemon.monitorSocket);
  await expect(connect(daemon.monitorSocket)).rejects.toMatchObject({ code: 'PLATFORM_BUSY' });
});
