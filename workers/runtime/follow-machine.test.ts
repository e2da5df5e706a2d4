import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { stackLayout } from '../../engines/stack/layout.ts';
import type { MachineConfig } from '../../schema/domain/configuration.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { followMachine } from './follow-machine.ts';

test('a change of the machine file reaches who follows it; a damaged one changes nothing', async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'td-follow-'));
  const ending = new AbortController();
  try {
    const seams = testSeams();
    const layout = { ...stackLayout(folder), machineFile: path.join(folder, 'machine.json') };
    const seen: MachineConfig[] = [];
    const write = (of: object): Promise<void> =>
      writeFile(layout.machineFile, JSON.stringify({ hosts: [], proxies: [], repositories: [], ...of }));
    const until = async (preferred: string): Promise<void> => {
      while (seen.at(-1)?.networks?.preferred[0] !== preferred) await seams.clock.sleep(20);
    };
    const networks = (preferred: string) => ({ networks: { timeZone: 'UTC', preferred: [preferred], throttle: [] } });
    await write(networks('10.0.0.0/8'));
    const following = followMachine(layout, seams, ending.signal, (machine) => seen.push(machine));
    await until('10.0.0.0/8');
    await writeFile(layout.machineFile, 'damaged');
    await seams.clock.sleep(1000);
    expect(seen).toHaveLength(1);
    await write(networks('192.0.2.0/24'));
    await until('192.0.2.0/24');
    ending.abort();
    await following;
  } finally {
    ending.abort();
    await rm(folder, { recursive: true, force: true });
  }
});
