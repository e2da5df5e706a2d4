import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { configurationParts } from './configuration-watch.ts';

test('limits of repositories and rules interrupt nobody; what else a worker reads starts it anew', async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'td-parts-'));
  try {
    const file = path.join(folder, 'machine.json');
    const main = { repositoryId: 'main', folder: '/backups', limits: { writeBytesPerSecond: 1 } };
    const machine = { site: 'lab', machineId: 'm1', hosts: [], proxies: [], repositories: [main], networks: {} };
    const partsOf = async (of: object) => {
      await writeFile(file, JSON.stringify(of));
      return await configurationParts(file);
    };
    const before = await partsOf(machine);
    expect(await partsOf({ ...machine, networks: { throttle: [1] } })).toEqual(before);
    expect(await partsOf({ ...machine, repositories: [{ ...main, limits: { writeBytesPerSecond: 2 } }] })).toEqual(
      before,
    );
    expect(await partsOf({ ...machine, repositories: [{ ...main, limits: undefined }] })).toEqual(before);
    const moved = await partsOf({ ...machine, repositories: [{ ...main, folder: '/elsewhere' }] });
    expect(moved).toEqual({ ...before, repository: moved.repository });
    expect(moved.repository).not.toBe(before.repository);
    const elsewhere = await partsOf({ ...machine, temporal: { address: 't.example.org:7233', tls: true } });
    expect(elsewhere.keeper).toBe(before.keeper);
    for (const worker of ['host', 'proxy', 'repository'] as const) expect(elsewhere[worker]).not.toBe(before[worker]);
    const bound = await partsOf({ ...machine, workers: { proxy: { cpus: 1 } } });
    expect(bound).toEqual({ ...before, proxy: bound.proxy });
    expect(bound.proxy).not.toBe(before.proxy);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
