import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { Child } from './child.ts';

test('one that is restarted ends as it is told to, comes up again as it is specified by then, and ends for good when stopped', async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'td-child-'));
  const specOf = (name: string) => ({
    name,
    command: process.execPath,
    args: [
      '-e',
      "process.on('SIGTERM', () => process.exit(7)); process.send({ ready: true }); setInterval(() => 0, 1000)",
    ],
    environment: {},
    readiness: { kind: 'message' as const },
    graceMs: 60_000,
  });
  const child = new Child(specOf('one'), path.join(folder, 'log'), testSeams().clock, () => undefined);
  try {
    child.restart();
    expect(child.status()).toMatchObject({ state: 'stopped', pid: null });
    child.start();
    expect(await child.whenReady(60_000)).toBe(true);
    const { pid } = child.status();
    child.respecify(specOf('another'));
    child.restart();
    while (child.status().restarts === 0) await testSeams().clock.sleep(10);
    expect(await child.whenReady(60_000)).toBe(true);
    expect(child.status()).toMatchObject({ state: 'ready', restarts: 1, lastExit: 'exit code 7' });
    expect(child.status().pid).not.toBe(pid);
    expect(child.name).toBe('another');
  } finally {
    await child.stop();
    expect(child.status().state).toBe('stopped');
    await rm(folder, { recursive: true, force: true });
  }
});
