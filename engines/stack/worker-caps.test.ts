import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { capped, residentBytes } from './worker-caps.ts';

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
