/** A process that is killed in the middle of a check, with its threads: the next goes on. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import type { CheckReport, CheckRequest } from '../../../schema/domain/maintenance.ts';
import { plainVault } from '../../../schema/repository/vault.ts';
import { rotBlock } from '../../../tests/fixtures/repository/damage.ts';
import { inEachTest } from '../../../tests/fixtures/repository/in-each-test.ts';
import {
  createTestRepository,
  planOf,
  type TestRepository,
} from '../../../tests/fixtures/repository/test-repository.ts';
import { diskOf } from '../../../tests/fixtures/repository/verbs.ts';
import { openRecordSink } from '../pack/record-sink.ts';
import { openPackThreads } from './pack-threads.ts';

process.env['TIDEMARK_LOG'] ??= 'fatal';
const BLOCKS = 60;
let world: TestRepository;
let child: ChildProcess | null = null;
const { openPoint, assign, send, seal } = inEachTest(
  () => createTestRepository({ secret: null }),
  (made) => (world = made),
);
afterEach(() => void child?.kill('SIGKILL'));

function start(): Promise<ChildProcess> {
  const entry = new URL('../../../tests/fixtures/repository/repository-process.ts', import.meta.url).pathname;
  const aside = join(world.folder, '..', 'process');
  const args = [entry, world.folder, join(aside, 'index'), join(aside, 's', 'm')];
  const started = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  child = started;
  return once(started.stdout, 'data').then(() => started);
}

/** Rejects when the process dies. */
async function check(of: ChildProcess): Promise<CheckReport> {
  const request: CheckRequest = { depth: 'full', vmId: null, restorePointId: null, maxBytes: null, maxMs: null };
  const died = once(of, 'exit').then(() => Promise.reject(new Error('died')));
  of.stdin!.write(`${JSON.stringify({ id: 1, verb: 'check', request })}\n`);
  const answered = once(createInterface({ input: of.stdout! }), 'line') as Promise<[string]>;
  const [line] = await Promise.race([answered, died]);
  const { value, error } = JSON.parse(line) as { value?: CheckReport; error?: unknown };
  if (!value) throw new Error(JSON.stringify(error));
  return value;
}

async function packsRead(): Promise<number> {
  const text = await readFile(join(world.folder, 'verified'), 'utf8').catch(() => '');
  return text.split('\n').filter((line) => line.includes('"pack"')).length;
}

test('is read on from where it was, and tells the damage found before', async () => {
  const sink = openRecordSink({ storage: world.storage, vault: plainVault, seams: world.seams, targetBytes: 1 });
  const point = await openPoint(1);
  const disk = diskOf(BLOCKS);
  await send({ assignment: await assign(point, planOf(disk.length)), disk, sink });
  const { restorePointId } = await seal(point);
  await sink.close();
  await world.reopen();
  for (let block = 0; block < BLOCKS; block += 1) if (block % 10 === 0) await rotBlock(world, restorePointId, block);
  await world.repository.close();
  const first = await start();
  const dying = expect(check(first)).rejects.toThrow('died');
  while ((await packsRead()) < 10) await delay(1);
  first.kill('SIGKILL');
  await dying;
  const before = await packsRead();
  expect(before).toBeGreaterThanOrEqual(10);
  expect(before).toBeLessThan(BLOCKS);
  const report = await check(await start());
  expect(report).toMatchObject({ whole: true, packs: BLOCKS + 1 - before, marked: [restorePointId] });
  expect(report.damages.map(({ kind, restorePoints }) => [kind, restorePoints])).toEqual(
    Array.from({ length: 6 }, () => ['record', [restorePointId]]),
  );
});

test('a thread that ends takes its check with it, and no more', async () => {
  const worker = openPackThreads({ entry: new URL('data:text/javascript,process.exit(3)'), data: null, count: 1 });
  const job = { contents: 'blocks' as const, packId: 'ab'.repeat(16), depth: 'full' as const };
  const ended = { code: 'BUG', message: 'a thread that reads packs ended: exit code 3' };
  await expect(worker.verify(job)).rejects.toMatchObject(ended);
  await expect(worker.verify(job)).rejects.toMatchObject(ended);
  await worker.close();
});
