import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { connectKeeper } from '../engines/guest/keeper/client.ts';
import { importGraph } from '../tests/fixtures/import-graph.ts';
import { testSeams } from '../tests/fixtures/seams.ts';

const keeperFile = resolve(import.meta.dirname, 'keeper.ts');
let folder: string;
let keeper: ChildProcess | null = null;
const start = async (): Promise<ChildProcess> => {
  const env = { ...process.env, TIDEMARK_STATE: folder, TIDEMARK_LOG: 'fatal' };
  keeper = spawn(process.execPath, [keeperFile], { env, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  expect((await once(keeper, 'message'))[0]).toEqual({ ready: true });
  return keeper;
};
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-kp-'));
});
afterEach(async () => {
  keeper?.kill('SIGKILL');
  await rm(folder, { recursive: true, force: true });
});

test('listens without a configuration, ends when its parent is gone, starts again over a stale socket', async () => {
  const client = connectKeeper({ socket: join(folder, 'run/keeper.sock'), seams: testSeams() });
  const first = await start();
  expect(await client.ping()).toEqual({ pid: first.pid });
  expect(await client.vms()).toEqual([]);
  first.disconnect();
  expect(await once(first, 'exit')).toEqual([0, null]);
  const second = await start();
  second.kill('SIGKILL');
  await once(second, 'exit');
  expect(existsSync(join(folder, 'run/keeper.sock'))).toBe(true);
  const third = await start();
  expect(await client.ping()).toEqual({ pid: third.pid });
  third.kill('SIGTERM');
  expect(await once(third, 'exit')).toEqual([0, null]);
});

test('loads no workflow engine and no database client', () => {
  const { files, packages } = importGraph(keeperFile);
  expect(files.length).toBeGreaterThan(10);
  expect(packages).toEqual(['pino']);
});
