import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { capped, capsOf, overMemory, residentBytes } from './worker-caps.ts';

const none = { memoryBytes: null, cpus: null, nice: null };

test('a worker is started on so many processors, and as nice, as it is told', () => {
  expect(capped('node', ['w.ts'], null)).toEqual({ command: 'node', args: ['w.ts'] });
  expect(capped('node', ['w.ts'], none)).toEqual({ command: 'node', args: ['w.ts'] });
  expect(capped('node', ['w.ts'], { ...none, cpus: 2 }, 8)).toEqual({
    command: 'taskset',
    args: ['--cpu-list', '6-7', 'node', 'w.ts'],
  });
  expect(capped('node', ['w.ts'], { ...none, cpus: 8 }, 8)).toEqual({ command: 'node', args: ['w.ts'] });
  expect(capped('node', ['w.ts'], { ...none, cpus: 1, nice: 10 }, 8)).toEqual({
    command: 'nice',
    args: ['-n', '10', 'taskset', '--cpu-list', '7-7', 'node', 'w.ts'],
  });
});

test('it is the process itself that is niced and bound, and its memory can be read', async () => {
  const own =
    "console.log(os.getPriority(), fs.readFileSync('/proc/self/status', 'utf8').match(/Cpus_allowed_list:\\s+(.*)/)[1], process.pid)";
  const { command, args } = capped(process.execPath, ['-e', own], { ...none, cpus: 1, nice: 7 }, 2);
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  await once(child, 'close');
  expect(output.trim()).toBe(`7 1 ${child.pid}`);
  expect(await residentBytes(process.pid)).toBeGreaterThan(1024 * 1024);
  expect(await residentBytes(child.pid!)).toBeNull();
});

test('a worker that takes too much is found, once it is ready; without a bound none is', async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'td-caps-'));
  try {
    const file = path.join(folder, 'machine.json');
    expect(await capsOf(file, 'proxy')).toBeNull();
    await writeFile(file, JSON.stringify({ workers: { proxy: { ...none, memoryBytes: 1024 * 1024 } } }));
    const { pid } = process;
    const ready = { name: 'proxy', pid, state: 'ready' } as const;
    expect(await overMemory(file, [ready, { ...ready, name: 'repository' }])).toEqual([
      { name: 'proxy', bytes: expect.any(Number) as number, most: 1024 * 1024 },
    ]);
    expect(
      await overMemory(file, [
        { ...ready, state: 'starting' },
        { ...ready, pid: null },
      ]),
    ).toEqual([]);
    await writeFile(file, JSON.stringify({ workers: { proxy: { ...none, memoryBytes: 2 ** 40 } } }));
    expect(await overMemory(file, [ready])).toEqual([]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
