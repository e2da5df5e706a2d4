import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startRecords, stopRecords, verifyRecords } from '../../tests/fixtures/guest/records.ts';
import { type Guest, startGuest, whyNoGuest } from '../../tests/fixtures/guest/start-guest.ts';
import { openTestAgent } from '../../tests/fixtures/guest/test-agent.ts';
import { openRawMonitor } from '../../tests/fixtures/raw-monitor.ts';

const reason = await whyNoGuest();
if (reason !== null) console.warn(`NOT TESTED, no test guest: ${reason}`);
let folder: string;
let guest: Guest | undefined;

beforeAll(async () => {
  if (reason !== null) return;
  folder = await mkdtemp(path.join(tmpdir(), 'tm-guest-'));
  const disk = (key: string, filesystem: 'ext4' | 'none') =>
    ({ key, file: path.join(folder, `${key}.qcow2`), format: 'qcow2', filesystem }) as const;
  guest = await startGuest({ folder, disks: [disk('data', 'ext4'), disk('bare', 'none')] });
});

afterAll(async () => {
  await guest?.kill();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

test.skipIf(reason !== null)(
  'the guest mounts its disks by name, runs commands, and shows both disks in QEMU',
  async () => {
    const agent = await openTestAgent(guest!.testAgentSocket);
    const { output } = await agent.run('echo hello > /mnt/data/a && sync && sha256sum < /mnt/data/a && mount');
    expect(output).toContain('5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03');
    expect(output).toMatch(/ on \/mnt\/data type ext4/);
    expect((await agent.run('exit 7', { mayFail: true })).exitCode).toBe(7);
    agent.close();
    const monitor = await openRawMonitor(guest!.testQmpSocket);
    const nodes = await monitor.execute<{ 'node-name': string }[]>('query-named-block-nodes');
    expect(nodes.map((node) => node['node-name'])).toEqual(expect.arrayContaining(['data', 'bare']));
    expect(await monitor.execute('query-uuid')).toEqual({ UUID: guest!.uuid });
    monitor.close();
  },
);

test.skipIf(reason !== null)('each agent freezes and thaws; a write waits while the other agent looks on', async () => {
  const own = await openTestAgent(guest!.agentSocket);
  const other = await openTestAgent(guest!.testAgentSocket);
  for (const [freezer, watcher] of [
    [own, other],
    [other, own],
  ] as const) {
    expect(await freezer.call('guest-fsfreeze-freeze')).toBe(1);
    await watcher.launch('echo x >> /mnt/data/blocked; echo done > /run/blocked');
    expect((await watcher.run('sleep 0.3; ls /run/blocked', { mayFail: true })).exitCode).not.toBe(0);
    expect(await freezer.call('guest-fsfreeze-thaw')).toBe(1);
    await watcher.run('until [ -e /run/blocked ]; do sleep 0.05; done; rm /run/blocked');
  }
  own.close();
  other.close();
});

test.skipIf(reason !== null)(
  'the record stream is chained, continues where it ended, and a false one is found',
  async () => {
    const agent = await openTestAgent(guest!.testAgentSocket);
    const read = async (): Promise<string> => (await agent.run('cat /mnt/data/records')).output;
    const until = (count: number): Promise<unknown> =>
      agent.run(`while [ "$(cat /mnt/data/records 2>/dev/null | wc -l)" -lt ${count} ]; do sleep 0.05; done`);
    await startRecords(agent, 'data');
    await until(5);
    await stopRecords(agent);
    const first = verifyRecords(await read()).count;
    await startRecords(agent, 'data');
    await until(first + 3);
    await stopRecords(agent);
    const content = await read();
    agent.close();
    expect(verifyRecords(content)).toEqual({ count: expect.any(Number), tornBytes: 0 });
    expect(verifyRecords(`${content}7`).tornBytes).toBe(1);
    expect(() => verifyRecords(content.replace(/^2 .*\n/m, ''))).toThrow(/record 2 is false/);
  },
);
