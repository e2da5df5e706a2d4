/** SIGKILL at random moments of a real process that runs repository and target; everything goes on by itself. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createCipheriv } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, open, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Extent } from '../../schema/domain/extents.ts';
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import { repositoryId, type RestorePointId } from '../../schema/domain/ids.ts';
import type { DiskPlan, SealOutcome, TransferSummary } from '../../schema/domain/restore-point.ts';
import type { Secret } from '../../schema/repository/secrets.ts';
import { type Next, orderOf, seeded } from '../../tests/fixtures/mover/disks.ts';
import { KEY_FILE } from '../../tests/fixtures/repository/keys.ts';
import { strangerKeys } from '../../tests/fixtures/repository/stranger-keys.ts';
import {
  strangerManifests,
  strangerRecords,
  strangerRestore,
} from '../../tests/fixtures/repository/stranger-reader.ts';
import { DISK, MIB, planOf, runOf, sealOf, specOf } from '../../tests/fixtures/repository/test-repository.ts';
import { expectSameBytes } from '../../tests/fixtures/oracle.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { createRestorePool } from '../mover/restore-client/pool.ts';
import { createSourcePool, type SourcePool } from '../mover/source/pool.ts';
import { openRepository } from './open-repository.ts';
import type { Repository } from './repository.ts';
import { openStorage } from './storage/storage.ts';

process.env['TIDEMARK_LOG'] ??= 'error';
const LANES = 2;
const SIZE = WINDOW_BYTES + 5 * MIB + 777;
type Verbs = Pick<Repository, 'openRestorePoint' | 'assignTransfer' | 'seal' | 'abort'>;

/** The process, started again whenever it dies. */
class Victim {
  kills = 0;
  readonly #args: string[];
  #child: ChildProcess | null = null;
  #ready: Promise<void> = Promise.resolve();
  #stopped = false;
  #nextId = 0;
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(error: unknown): void }>();

  constructor(args: string[]) {
    this.#args = args;
    this.#start();
  }

  kill(): void {
    this.kills += 1;
    this.#child?.kill('SIGKILL');
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  /** Asks until there is an answer, as an activity is retried. `meanwhile`: while the verb is under way. */
  async call<V extends keyof Verbs>(
    verb: V,
    request: Parameters<Verbs[V]>[0],
    meanwhile?: () => void,
  ): Promise<Awaited<ReturnType<Verbs[V]>>> {
    for (;;) {
      await this.#ready;
      const id = (this.#nextId += 1);
      const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
      this.#child?.stdin?.write(`${JSON.stringify({ id, verb, request })}\n`);
      meanwhile?.();
      try {
        return (await answer) as Awaited<ReturnType<Verbs[V]>>;
      } catch (error) {
        if (error !== 'died') throw error;
      }
    }
  }

  #start(): void {
    const child = spawn(process.execPath, this.#args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child = child;
    child.stdin.on('error', () => undefined);
    this.#ready = new Promise((resolve) => {
      createInterface({ input: child.stdout }).on('line', (line) => {
        const said = JSON.parse(line) as { ready?: true; id: number; value?: unknown; error?: { message: string } };
        if (said.ready) return resolve();
        const waiting = this.#waiting.get(said.id);
        this.#waiting.delete(said.id);
        if (said.error) waiting?.reject(Object.assign(new Error(said.error.message), said.error));
        else waiting?.resolve(said.value);
      });
      // Killed before it was ready: whoever waits asks its successor.
      child.once('exit', () => resolve());
    });
    child.once('exit', () => {
      for (const waiting of this.#waiting.values()) waiting.reject('died');
      this.#waiting.clear();
      if (!this.#stopped) this.#start();
    });
  }
}

let root: string;
/** The repository is plain or encrypted, as the seed has it. */
let secret: Secret | null;
let next: Next;
let victim: Victim;
let pool: SourcePool;
const seams = testSeams();
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'td-kill-'));
  const entry = new URL('../../tests/fixtures/repository/repository-process.ts', import.meta.url).pathname;
  ({ next } = seeded());
  secret = next(2) === 0 ? null : KEY_FILE;
  const keyFile = join(root, 'key');
  await writeFile(keyFile, KEY_FILE.content, { mode: 0o600 });
  victim = new Victim([
    entry,
    join(root, 'r'),
    join(root, 'index'),
    join(root, 's', 'm'),
    ...(secret ? [keyFile] : []),
  ]);
  const laneEntry = new URL('../../tests/fixtures/mover/source-lane.ts', import.meta.url);
  pool = createSourcePool({ laneCount: LANES, laneEntry, seams });
});
afterEach(async () => {
  await pool.close();
  await victim.stop();
  await rm(root, { recursive: true, force: true });
});

/** Nothing in it compresses or repeats; the same for the same seed. */
function noise(sizeBytes: number, seed: number): Buffer {
  const key = Buffer.alloc(16);
  key.writeUInt32LE(seed);
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(sizeBytes));
}

const later = (next: Next, withinMs: number): void => void setTimeout(() => victim.kill(), next(withinMs));

/** Transfers a disk while the repository is killed `kills` times; what was sent, and how often it was killed. */
async function transfer(
  of: {
    number: number;
    restorePointId: RestorePointId;
    plan: DiskPlan;
    file: string;
    changed: Extent[];
    kills: number;
  },
  next: Next,
): Promise<TransferSummary> {
  const { number, restorePointId, plan, file, changed } = of;
  const run = runOf(number);
  const request = { restorePointId, run, disk: plan, checkpoint: `c${number}`, assignment: 1 };
  const given = await victim.call('assignTransfer', request, () => next(2) === 0 && later(next, 20));
  const endpoint = { unix: join(root, 's', 'm') };
  const assignment = { ...given, endpoint };
  const order = orderOf({ disk: { file, changed }, sizeBytes: plan.sizeBytes, blockSize: MIB, endpoint });
  // The first window before the first kill is begun, the last when nearly all is sent.
  const marks = Array.from({ length: of.kills }, () => next(SIZE)).sort((a, b) => a - b);
  return pool.transfer({
    access: { ...order.access, run },
    assignment,
    signal: order.signal,
    onProgress: ({ sentBytes }) => {
      if (marks.length === 0 || sentBytes < marks[0]!) return;
      marks.shift();
      later(next, 40);
    },
  });
}

async function restored(restorePointId: RestorePointId, name: string): Promise<string> {
  const file = join(root, `${name}-${restorePointId}`);
  await writeFile(file, '');
  await truncate(file, SIZE);
  const run = runOf(99);
  const laneEntry = new URL('../../tests/fixtures/mover/restore-lane.ts', import.meta.url);
  const restores = createRestorePool({ laneCount: 1, laneEntry, seams });
  try {
    const access = { run, diskKey: DISK, sizeBytes: SIZE, cursorFile: `${file}.cursor` };
    await restores.restoreDisk({
      run,
      restorePointId,
      diskKey: DISK,
      endpoint: { unix: join(root, 's', 'm') },
      target: { ...access, data: { via: 'file', path: file } },
      signal: new AbortController().signal,
    });
  } finally {
    await restores.close();
  }
  return file;
}

async function change(file: string, next: Next): Promise<Extent[]> {
  const handle = await open(file, 'r+');
  const changed = Array.from({ length: 40 }, () => ({ offset: next(SIZE - 5000), length: 1 + next(5000) }));
  for (const { offset, length } of changed)
    await handle.write(Buffer.alloc(length, `${next(1e6)} `), 0, length, offset);
  await handle.close();
  return changed.sort((a, b) => a.offset - b.offset);
}

test(
  'transfers go on from the last window, decisions stay decided, what is sealed comes back',
  { timeout: 240_000 },
  async () => {
    const file = join(root, 'disk');
    await writeFile(file, noise(SIZE, next(2 ** 31)));
    const sealed: { outcome: SealOutcome; copy: string }[] = [];
    let changed: Extent[] = [];
    for (let number = 1; number <= 2; number += 1) {
      const run = runOf(number);
      const { restorePointId, base } = await victim.call(
        'openRestorePoint',
        specOf(run, { compression: 'none' }),
        () => next(2) === 0 && later(next, 10),
      );
      expect(base?.restorePointId ?? null).toBe(sealed.at(-1)?.outcome.restorePointId ?? null);
      const plan = planOf(SIZE, base ? { mode: 'cbt', baseRestorePointId: base.restorePointId } : {});
      const kills = number === 1 ? 3 : 1;
      const before = victim.kills;
      const summary = await transfer({ number, restorePointId, plan, file, changed, kills }, next);
      const died = victim.kills - before;
      const wanted = number === 1 ? SIZE : 2 * changed.length * MIB;
      expect(summary.sentBytes - wanted).toBeLessThanOrEqual(died * Math.min(wanted, LANES * WINDOW_BYTES));
      const outcome = await victim.call('seal', sealOf(restorePointId, run), () => next(3) > 0 && later(next, 60));
      expect(await victim.call('abort', { restorePointId, run })).toEqual({ outcome: 'sealed', sealed: outcome });
      const copy = await restored(restorePointId, 'first');
      await expectSameBytes(copy, file);
      sealed.push({ outcome, copy });
      changed = await change(file, next);
    }
    const [oldest] = sealed;
    await expectSameBytes(await restored(oldest!.outcome.restorePointId, 'again'), oldest!.copy);
    await victim.stop();
    await checkAtRest(sealed);
  },
);

/** What a next process finds, and what somebody finds who knows only the format. */
async function checkAtRest(sealed: readonly { outcome: SealOutcome; copy: string }[]): Promise<void> {
  const folder = join(root, 'r');
  const repository = await openRepository({
    storage: openStorage({ kind: 'folder', folder }),
    repositoryId: repositoryId('main'),
    secret,
    indexFolder: join(root, 'index'),
    seams,
  });
  expect(
    repository
      .listSealed()
      .map((one) => one.restorePointId)
      .sort(),
  ).toEqual(sealed.map(({ outcome }) => outcome.restorePointId).sort());
  expect(repository.listOpen()).toEqual([]);
  await repository.close();
  expect(await readdir(join(folder, 'open'))).toEqual(['packs']);
  const keys = secret && strangerKeys(folder, { keyFile: KEY_FILE.content });
  const records = strangerRecords(folder, keys);
  for (const { restorePointId, disks } of strangerManifests(folder, keys)) {
    const copy = join(root, 'stranger');
    await writeFile(copy, strangerRestore(records, disks[0]!, keys));
    await expectSameBytes(copy, sealed.find(({ outcome }) => outcome.restorePointId === restorePointId)!.copy);
  }
}

test('seal and abort at once, killed over it: one answer, for ever', { timeout: 240_000 }, async () => {
  const file = join(root, 'disk');
  await writeFile(file, '');
  await truncate(file, MIB);
  for (let number = 1; number <= 4; number += 1) {
    const run = runOf(number);
    const { restorePointId } = await victim.call('openRestorePoint', specOf(run));
    await transfer({ number, restorePointId, plan: planOf(MIB), file, changed: [], kills: 0 }, () => 1);
    const sealFirst = next(2) === 0;
    const sealing = (): Promise<boolean> =>
      victim.call('seal', sealOf(restorePointId, run)).then(
        () => true,
        (error: { code?: string }) => {
          expect(error.code).toBe('RESTORE_POINT_ABORTED');
          return false;
        },
      );
    const first = sealFirst ? sealing() : null;
    const aborting = victim.call('abort', { restorePointId, run });
    const second = first ?? sealing();
    later(next, 15);
    const [wasSealed, { outcome }] = await Promise.all([second, aborting]);
    expect(outcome).toBe(wasSealed ? 'sealed' : 'aborted');
    victim.kill();
    expect((await victim.call('abort', { restorePointId, run })).outcome).toBe(outcome);
    expect(await sealing()).toBe(wasSealed);
  }
});
