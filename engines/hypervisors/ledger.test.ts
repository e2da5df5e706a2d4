import { appendFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Artifact } from '../../schema/domain/hypervisor.ts';
import { hostId, runKey, siteId, vmId } from '../../schema/domain/ids.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { createArtifactLedger } from './ledger.ts';

let folder: string;
const open = () => createArtifactLedger(folder, testSeams().log);
const artifact = (index: number): Artifact => ({
  kind: 'temporary',
  site: siteId('s1'),
  run: runKey('abcdefghijk1'),
  vm: { vmId: vmId('v'), hostId: hostId('h') },
  what: `thing ${index}`,
  platformName: `td-s1-abcdefghijk1-job${index}`,
});

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-ledger-'));
});
afterEach(() => rm(folder, { recursive: true }));

it('remembers intents and what became of them over a restart', async () => {
  const ledger = await open();
  await ledger.intend([0, 1, 2].map(artifact));
  await ledger.made([artifact(1)], 'platform-1');
  await ledger.intend([artifact(1)]);
  await ledger.remove([artifact(0)]);
  await ledger.remove([artifact(0)]);
  await ledger.close();
  const again = await open();
  expect(again.list()).toEqual([
    { artifact: artifact(1), state: 'made', platformId: 'platform-1' },
    { artifact: artifact(2), state: 'intent', platformId: null },
  ]);
  await again.close();
});

it('goes on after a torn line and past a damaged one', async () => {
  const first = await open();
  await first.intend([artifact(0)]);
  await first.close();
  await appendFile(join(folder, 'artifacts.jsonl'), '{broken}\n{"set":{"artif');
  const second = await open();
  await second.intend([artifact(1)]);
  await second.close();
  const third = await open();
  expect(third.list().map((entry) => entry.artifact)).toEqual([artifact(0), artifact(1)]);
  await third.close();
});

it('takes nothing when it is closed', async () => {
  const first = await open();
  await first.intend([0, 1].map(artifact));
  await first.close();
  await expect(first.intend([2, 3].map(artifact))).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
  expect(first.list().map((entry) => entry.artifact)).toEqual([artifact(0), artifact(1)]);
});

it('drops history and keeps what is alive', async () => {
  const ledger = await open();
  await ledger.intend([artifact(9999)]);
  for (let index = 0; index < 200; index++) {
    await ledger.intend([artifact(index)]);
    await ledger.remove([artifact(index)]);
  }
  await ledger.close();
  expect((await readFile(join(folder, 'artifacts.jsonl'), 'utf8')).split('\n').length).toBeLessThan(300);
  const again = await open();
  expect(again.list().map((entry) => entry.artifact)).toEqual([artifact(9999)]);
  await again.close();
});
