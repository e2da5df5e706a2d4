/**
 * The worker of a host dies before each single thing that it does outside itself: commands to QEMU, tools, its own files.
 * Another worker then says the verb again, or takes everything back, or knows nothing and begins the next session. A
 * monitor that is lost on the way is no death: the same worker goes on.
 */
import { promisify } from 'node:util';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { errorCodeOf } from '../../../schema/domain/errors.ts';
import type { CheckpointSpec, ReferencePoint } from '../../../schema/domain/hypervisor.ts';
import type { RunKey } from '../../../schema/domain/ids.ts';
import { seeded } from '../../../tests/fixtures/mover/disks.ts';
import {
  type Contents,
  copyOf,
  differing,
  leftBy,
  leftOver,
  makeSessionHost,
  readCheckpoint,
  type Sealed,
  type SessionHost,
} from '../../../tests/fixtures/qemu-sessions.ts';
import { playsAll } from '../../../tests/fixtures/sampled.ts';
import { createFakeFreezer } from '../contract.ts';
import type { HypervisorProvider } from '../provider.ts';

/** `not heard`: a command is lost on its way; `no reply`: it is done, but nobody is told. */
type Fate = 'dies' | 'not heard' | 'no reply';

const fate = vi.hoisted(() => {
  const none = { left: Infinity, afterCommand: '', how: 'dies' as Fate, died: (): void => undefined };
  const state = { ...none };
  /** Of the worker itself, to storage daemons; they end with it. The keeper's to the VM goes on. */
  const connections = new Set<{ close(): void }>();
  /** Does `act`, unless this is where the worker's fate comes. */
  async function step<T>(act: () => Promise<T>): Promise<T> {
    state.left -= 1;
    if (state.left >= 0) return await act();
    if (state.how === 'dies') {
      state.died();
      return await new Promise<never>(() => undefined);
    }
    if (state.left < -1) return await act();
    if (state.how === 'no reply') await act();
    throw Object.assign(new Error('the connection was lost'), { code: 'UNREACHABLE' });
  }
  /** Of tools and files only a death is told here. */
  const deadly =
    <A extends unknown[], R>(act: (...words: A) => Promise<R>) =>
    async (...words: A): Promise<R> =>
      await (state.how === 'dies' ? step(() => act(...words)) : act(...words));
  /** A process that dies closes its files; here somebody has to. */
  const files = new Set<{ close(): Promise<void> }>();
  return { none, state, step, deadly, connections, files };
});

vi.mock(import('../../qmp/client.ts'), async (original) => {
  const actual = await original();
  return {
    ...actual,
    connectQmp: async (options) => {
      const connection = await actual.connectQmp(options);
      if (/storage daemon/.test(options.owner)) fate.connections.add(connection);
      const execute = async <T>(command: string, args?: Record<string, unknown>): Promise<T> => {
        const answer = await fate.step(() => connection.execute<T>(command, args));
        if (command === fate.state.afterCommand) fate.state.left = 0;
        return answer;
      };
      return { ...connection, execute };
    },
  };
});
vi.mock(import('node:child_process'), async (original) => {
  const actual = await original();
  const told = { [promisify.custom]: fate.deadly(promisify(actual.execFile)) };
  return { ...actual, execFile: Object.assign(actual.execFile.bind(null), told) as typeof actual.execFile };
});
vi.mock(import('../durable-json.ts'), async (original) => {
  const { writeJson, removeJson, ...rest } = await original();
  return { ...rest, writeJson: fate.deadly(writeJson), removeJson: fate.deadly(removeJson) };
});
vi.mock(import('../ledger.ts'), async (original) => {
  const actual = await original();
  return {
    createArtifactLedger: async (folder, log) => {
      const ledger = await actual.createArtifactLedger(folder, log);
      fate.files.add(ledger);
      return {
        list: () => ledger.list(),
        close: () => ledger.close(),
        intend: fate.deadly((artifacts) => ledger.intend(artifacts)),
        made: fate.deadly((artifacts, platformId) => ledger.made(artifacts, platformId)),
        remove: fate.deadly((artifacts) => ledger.remove(artifacts)),
      };
    },
  };
});

afterEach(async () => {
  for (const file of fate.files) await file.close();
  fate.files.clear();
});

/** Steps that are done before it comes; or the command after which it comes. */
type When = number | string;

/** False: `work` was over before its fate came. */
async function meetsFate(how: Fate, when: When, work: () => Promise<unknown>): Promise<boolean> {
  const moment = typeof when === 'number' ? { left: when } : { afterCommand: when };
  const died = new Promise<void>((resolve) => Object.assign(fate.state, { ...moment, how, died: resolve }));
  // What came of it is for the next worker to find.
  await Promise.race([died, work().catch(() => undefined)]);
  const met = fate.state.left < 0;
  for (const connection of how === 'dies' ? fate.connections : []) connection.close();
  fate.connections.clear();
  Object.assign(fate.state, fate.none);
  return met;
}

type Verb = 'create' | 'read' | 'release' | 'commit' | 'discard';
/** `retry`: the verb is said again, and the session goes on. `undo`: all of it is taken back. `forget`: neither. */
type Sequel = 'retry' | 'undo' | 'forget';

async function undo(worker: HypervisorProvider, run: RunKey): Promise<void> {
  await worker.closeAccess(run);
  await worker.releaseCheckpoint(run).catch((error: unknown) => {
    if (errorCodeOf(error) !== 'CHECKPOINT_LOST') throw error;
  });
  await worker.discardReferencePoint(run);
}

/** One machine through all fates, one after another: what one of them leaves behind, the next one trips over. */
class Story {
  readonly #host: SessionHost;
  readonly #next: (below: number) => number;
  #worker: HypervisorProvider;
  #base: Sealed | null = null;
  /** Checkpoints that a worker took, and the one after it showed. */
  adopted = 0;

  constructor(host: SessionHost, next: (below: number) => number) {
    this.#host = host;
    this.#next = next;
    this.#worker = host.worker();
  }

  /** False: the verb was over before its fate came. */
  async tell(verb: Verb, how: Fate, when: When, sequel: Sequel): Promise<boolean> {
    await this.#host.scribble(this.#next);
    const session = new Session(
      this.#host.spec(this.#base?.referencePoint ?? null),
      copyOf(this.#host.now),
      this.#base,
    );
    const order: Verb[] = ['create', 'read', 'release', verb === 'discard' ? 'discard' : 'commit'];
    for (const one of order.slice(0, order.indexOf(verb))) await session.say(this.#worker, one);
    if (verb !== 'create') await this.#scribbleIfRunning();
    const met = await meetsFate(how, when, () => session.say(this.#worker, verb));
    if (how === 'dies') this.#worker = this.#host.worker();
    await this.#scribbleIfRunning();
    if (sequel === 'retry') await this.#goOn(session, order.slice(order.indexOf(verb)));
    else if (sequel === 'undo') await undo(this.#worker, session.spec.run);
    else {
      if (verb === 'commit') this.#base = session.sealed();
      await this.whole();
    }
    expect(await leftOver(this.#host)).toEqual(leftBy(this.#base));
    return met;
  }

  async whole(): Promise<void> {
    const spec = this.#host.spec(this.#base?.referencePoint ?? null);
    await this.#goOn(new Session(spec, copyOf(this.#host.now), this.#base), ['create', 'read', 'release', 'commit']);
  }

  async #goOn(session: Session, verbs: readonly Verb[]): Promise<void> {
    for (const verb of verbs) {
      await session.say(this.#worker, verb);
      // It may have been taken only now.
      if (verb === 'create') session.mayBe(copyOf(this.#host.now));
      if (verb === 'read' && session.wasAdopted) this.adopted += 1;
    }
    if (!verbs.includes('discard')) this.#base = session.sealed();
  }

  async #scribbleIfRunning(): Promise<void> {
    if (this.#host.power === 'on') await this.#host.scribble(this.#next);
  }
}

class Session {
  readonly spec: CheckpointSpec;
  readonly #base: Sealed | null;
  /** What the disks may have held at the instant. */
  #instants: Contents[];
  #referencePoint: ReferencePoint | null = null;
  wasAdopted = false;

  constructor(spec: CheckpointSpec, instant: Contents, base: Sealed | null) {
    this.spec = spec;
    this.#instants = [instant];
    this.#base = base;
  }

  mayBe(instant: Contents): void {
    if (differing(instant, this.#instants[0]!).length > 0) this.#instants.push(instant);
  }

  async say(worker: HypervisorProvider, verb: Verb): Promise<void> {
    const { run, lineage } = this.spec;
    if (verb === 'create') await worker.createCheckpoint(this.spec, createFakeFreezer());
    if (verb === 'read') await this.#read(worker);
    if (verb === 'release') this.#referencePoint = (await worker.releaseCheckpoint(run)).referencePoint;
    if (verb === 'commit') await worker.commitReferencePoint(lineage, this.#referencePoint!);
    if (verb === 'discard') await worker.discardReferencePoint(run);
  }

  async #read(worker: HypervisorProvider): Promise<void> {
    const { whole, overBase, uses } = await readCheckpoint(worker, this.spec.run, this.#base);
    const instant = this.#instants.find((one) => differing(whole, one).length === 0);
    expect(instant, 'the checkpoint shows one instant').toBeDefined();
    this.wasAdopted = this.#instants.length > 1 && instant === this.#instants[0];
    this.#instants = [instant!];
    expect(uses).toEqual(this.spec.disks.map(() => (this.#base ? 'changes' : 'compare')));
    expect(differing(overBase, instant!), 'disks whose changes are not complete').toEqual([]);
    await worker.closeAccess(this.spec.run);
  }

  sealed(): Sealed {
    return { contents: this.#instants[0]!, referencePoint: this.#referencePoint! };
  }
}

/** Of the moments between the steps of a verb one in so many is played, unless all are. */
const STRIDE = playsAll ? 1 : 3;

/** Steps of the verb, each with one of the sequels in turn; a test with another seed begins with others. Gives how many. */
async function tellAll(
  story: Story,
  verb: Verb,
  how: Fate,
  sequels: readonly Sequel[],
  first: number,
): Promise<number> {
  let told = 0;
  for (let met = true, after = first % STRIDE; met; after += STRIDE) {
    const sequel = sequels[(first + told) % sequels.length]!;
    met = await story.tell(verb, how, after, sequel).catch((error: unknown) => {
      throw new Error(`${verb}: ${how} after ${after} steps, then ${sequel}`, { cause: error });
    });
    if (met) told += 1;
  }
  return told;
}

const verbs: [Verb, Sequel[]][] = [
  ['create', ['undo', 'forget', 'retry']],
  ['read', ['undo', 'forget', 'retry']],
  ['release', ['undo', 'forget', 'retry']],
  ['commit', ['forget', 'retry']],
  ['discard', ['forget', 'retry']],
];

describe.each(['on', 'off'] as const)('what befalls a worker while the VM is %s', (power) => {
  let host: SessionHost;
  let next: (below: number) => number;
  const begin = async (diskCount: number): Promise<Story> => {
    host = await makeSessionHost(power, diskCount);
    ({ next } = seeded());
    const story = new Story(host, next);
    await story.whole();
    return story;
  };
  afterEach(() => host.close());

  it.each(verbs)('dies in %s', { timeout: 240_000 }, async (verb, sequels) => {
    const story = await begin(power === 'on' ? 2 : 1);
    expect(await tellAll(story, verb, 'dies', sequels, next(9))).toBeGreaterThan(0);
  });

  it.each(verbs)('loses the monitor in %s', { timeout: 240_000 }, async (verb, sequels) => {
    const story = await begin(1);
    for (const how of ['not heard', 'no reply'] as const) await tellAll(story, verb, how, sequels, next(9));
  });
});

it('a checkpoint that is whole is adopted by the next worker', async () => {
  const host = await makeSessionHost('on', 1);
  const story = new Story(host, seeded().next);
  await story.whole();
  expect(await story.tell('create', 'dies', 'transaction', 'retry')).toBe(true);
  expect(story.adopted).toBe(1);
  await host.close();
});
