/**
 * Who freezes and thaws guests (invariant 7). A guest is entered in the ledger, durably, before it is frozen, and is
 * struck out only when the guest itself has answered a thaw: whatever dies in between, somebody still knows.
 */
import { errorCodeOf, messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { RunKey, VmId } from '../../../schema/domain/ids.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import type { GuestAgent } from '../agent/guest-agent.ts';
import { durableFile, type DurableFile } from './durable-file.ts';
import { MAX_DEADLINE_MS, type ThawResult } from './protocol.ts';

/** An entry of `frozen.json`. `agent`: the guest can be thawed even when the configuration no longer has it. */
export type FrozenEntry = { vmId: VmId; run: RunKey; agent: string; deadlineAtMs: number };
type Ending = 'asked' | 'deadline' | 'caller lost' | 'freeze failed' | 'keeper stopped' | 'keeper started';
type Freeze = {
  entry: FrozenEntry;
  owner: object | null;
  fileSystems: number | null;
  startedMs: number;
  frozenAtMs: number | null;
  timer: NodeJS.Timeout | null;
  /** Set once; resolves when the guest has answered a thaw, however long that takes. */
  ending: { why: Ending; done: Promise<ThawResult> } | null;
};

type Guest = { vmId: VmId; agent: string };
type Options = { stateFolder: string; seams: Seams; agentOf: (vm: Guest) => GuestAgent };

/** One attempt to thaw; a guest needs 50 ms. */
const thawAttemptMs = 3_000;
/** For the agent to answer at all before it is asked to freeze, at most. */
const reachMs = 4_000;
const retryMs = { first: 200, most: 5_000 };
/** How long a caller waits for a thaw; it goes on after that without the caller. */
const thawWaitMs = 15_000;

export class FreezeKeeper {
  readonly #seams: Seams;
  readonly #agentOf: Options['agentOf'];
  readonly #file: DurableFile;
  readonly #freezes = new Map<VmId, Freeze>();
  readonly #outcomes = new Map<VmId, { run: RunKey; result: ThawResult }>();
  readonly #closed = new AbortController();
  #stopping = false;

  constructor({ stateFolder, seams, agentOf }: Options) {
    this.#seams = seams;
    this.#agentOf = agentOf;
    this.#file = durableFile(`${stateFolder}/frozen.json`);
  }

  /** Thaws everything the ledger shows frozen, in the background; `all` is for a ledger that cannot be read. */
  async start(all: Guest[]): Promise<void> {
    for (const entry of await readLedger(this.#file, all, this.#seams)) {
      const freeze = {
        entry,
        owner: null,
        fileSystems: null,
        startedMs: 0,
        frozenAtMs: null,
        timer: null,
        ending: null,
      };
      this.#freezes.set(entry.vmId, freeze);
      void this.#end(freeze, 'keeper started');
    }
  }

  /** Number of file systems. GUEST_UNREACHABLE, GUEST_FREEZE_FAILED: then the guest is thawed, whatever was done. */
  async freeze(vm: Guest, run: RunKey, deadlineMs: number, owner: object): Promise<number> {
    const boundMs = Math.max(1, Math.min(deadlineMs, MAX_DEADLINE_MS));
    const freeze = this.#enter(vm, run, boundMs, owner);
    try {
      return await this.#freezeNow(freeze, boundMs);
    } catch (error) {
      // Asked, and whatever was answered, some of the guest's file systems may be frozen; never asked, none is.
      if (errorCodeOf(error) === 'GUEST_UNREACHABLE' && !freeze.ending) await this.#forget(freeze);
      else void this.#end(freeze, 'freeze failed');
      throw errorCodeOf(error) ? error : freezeFailed(vm, run, messageOf(error), error);
    }
  }

  /** GUEST_UNREACHABLE when the guest does not answer for long; it is tried on without the caller. */
  async thaw(vm: Guest, run: RunKey): Promise<ThawResult> {
    const freeze = this.#freezes.get(vm.vmId);
    if (freeze?.entry.run === run) return await this.#within(this.#end(freeze, 'asked'), vm);
    const outcome = this.#outcomes.get(vm.vmId);
    if (outcome?.run === run) return outcome.result;
    // Held by another run: not ours to thaw, and ours is not frozen any more.
    const fileSystems = freeze ? 0 : await this.#agentOf(vm).thaw(thawAttemptMs);
    return { fileSystems, byUs: false, frozenMs: 0 };
  }

  async isFrozen(vm: Guest): Promise<boolean> {
    return (await this.#agentOf(vm).status(thawAttemptMs)) === 'frozen';
  }

  held(vmId: VmId): { run: RunKey; deadlineAtMs: number } | null {
    const entry = this.#freezes.get(vmId)?.entry;
    return entry ? { run: entry.run, deadlineAtMs: entry.deadlineAtMs } : null;
  }

  /** The caller's connection is lost. */
  lost(owner: object): void {
    for (const freeze of this.#freezes.values()) if (freeze.owner === owner) void this.#end(freeze, 'caller lost');
  }

  /** Thaws all; gives those guests that did not answer in the time. They stay in the ledger. */
  async stop(waitMs: number): Promise<VmId[]> {
    this.#stopping = true;
    const all = Promise.all([...this.#freezes.values()].map((freeze) => this.#end(freeze, 'keeper stopped')));
    await this.#atMost(waitMs, all);
    this.#closed.abort();
    return [...this.#freezes.keys()];
  }

  #save(): Promise<void> {
    return this.#file.write(() => ({ version: 1, frozen: [...this.#freezes.values()].map((freeze) => freeze.entry) }));
  }

  #enter(vm: Guest, run: RunKey, deadlineMs: number, owner: object): Freeze {
    const { clock } = this.#seams;
    const held = this.#freezes.get(vm.vmId);
    const busy = this.#stopping ? 'the guest keeper is stopping' : held ? `it is held by run ${held.entry.run}` : null;
    if (busy) throw freezeFailed(vm, run, busy);
    const entry = { vmId: vm.vmId, run, agent: vm.agent, deadlineAtMs: clock.now() + deadlineMs };
    const startedMs = clock.monotonic();
    const freeze: Freeze = { entry, owner, fileSystems: null, startedMs, frozenAtMs: null, timer: null, ending: null };
    freeze.timer = setTimeout(() => void this.#end(freeze, 'deadline'), deadlineMs);
    this.#freezes.set(vm.vmId, freeze);
    this.#outcomes.delete(vm.vmId);
    return freeze;
  }

  async #freezeNow(freeze: Freeze, deadlineMs: number): Promise<number> {
    const { entry } = freeze;
    const { clock } = this.#seams;
    await this.#save();
    const left = (): number => deadlineMs - (clock.monotonic() - freeze.startedMs);
    const agent = this.#agentOf(entry);
    // An agent that is not there is told from one that hangs in the freeze: the first leaves nothing to thaw.
    await agent.sync(Math.max(1, Math.min(reachMs, left() / 2)));
    if (freeze.ending || left() <= 0) throw freezeFailed(entry, entry.run, 'the time was over before it began');
    const fileSystems = await agent.freeze(left());
    freeze.fileSystems = fileSystems;
    freeze.frozenAtMs = clock.monotonic();
    const ending = endingOf(freeze);
    if (ending) throw freezeFailed(entry, entry.run, `it is thawed again already (${ending.why})`);
    return fileSystems;
  }

  async #forget(freeze: Freeze): Promise<void> {
    const { vmId, run } = freeze.entry;
    if (freeze.timer) clearTimeout(freeze.timer);
    this.#freezes.delete(vmId);
    const fields = { vm: vmId, run };
    await this.#save().catch((error: unknown) =>
      this.#seams.log.error('cannot strike a guest out that was not frozen', { ...fields, error: messageOf(error) }),
    );
  }

  /** Begins to thaw, once; the promise is for whoever wants to wait. */
  #end(freeze: Freeze, why: Ending): Promise<ThawResult> {
    if (freeze.ending) return freeze.ending.done;
    const done = this.#thawUntilAnswered(freeze, why);
    // It rejects only when the keeper is closed over a guest that stays silent; the ledger keeps that guest.
    done.catch(() => undefined);
    freeze.ending = { why, done };
    return done;
  }

  async #thawUntilAnswered(freeze: Freeze, why: Ending): Promise<ThawResult> {
    const { log, clock } = this.#seams;
    const { vmId, run, agent } = freeze.entry;
    const fields = { vm: vmId, run, socket: agent, why };
    if (freeze.timer) clearTimeout(freeze.timer);
    if (why !== 'asked') log.warn('thaws a guest unasked', fields);
    const fileSystems = await this.#retryThaw(freeze.entry, fields);
    const frozenMs = Math.round(clock.monotonic() - (freeze.frozenAtMs ?? freeze.startedMs));
    const byUs = why === 'asked' && fileSystems > 0 && fileSystems === freeze.fileSystems;
    const result = { fileSystems, byUs, frozenMs: why === 'keeper started' ? 0 : frozenMs };
    this.#outcomes.set(vmId, { run, result });
    this.#freezes.delete(vmId);
    await this.#save().catch((error: unknown) =>
      log.error('cannot strike a thawed guest out', { ...fields, error: messageOf(error) }),
    );
    log.info('guest thawed', { ...fields, ...result });
    return result;
  }

  async #retryThaw(entry: FrozenEntry, fields: Record<string, unknown>): Promise<number> {
    const { log, clock } = this.#seams;
    const agent = this.#agentOf(entry);
    for (let attempt = 1, waitMs = retryMs.first; ; attempt += 1, waitMs = Math.min(waitMs * 2, retryMs.most)) {
      try {
        return await agent.thaw(thawAttemptMs);
      } catch (error) {
        // A guest that thawed by itself (Windows does after 10 s) refuses the thaw and says so in its status.
        const status = await agent.status(thawAttemptMs).catch(() => 'unknown');
        if (status === 'thawed') return 0;
        const what = { ...fields, attempt, error: messageOf(error) };
        const loud = attempt <= 3 || attempt % 10 === 0;
        log[loud ? 'error' : 'debug']('GUEST MAY STILL BE FROZEN: thaw failed, will be tried again', what);
      }
      await clock.sleep(waitMs, this.#closed.signal);
    }
  }

  async #within(done: Promise<ThawResult>, vm: Guest): Promise<ThawResult> {
    const result = await this.#atMost(thawWaitMs, done);
    if (result) return result;
    throw new TidemarkError(
      'GUEST_UNREACHABLE',
      `guest of vm ${vm.vmId} at ${vm.agent} did not answer a thaw; the guest keeper goes on trying`,
      { vm: vm.vmId, socket: vm.agent },
    );
  }

  /** What `promise` gives, or null when the time is over. */
  async #atMost<T>(waitMs: number, promise: Promise<T>): Promise<T | null> {
    const giveUp = new AbortController();
    const late = this.#seams.clock.sleep(waitMs, giveUp.signal).then(
      () => null,
      () => null,
    );
    try {
      return await Promise.race([promise, late]);
    } finally {
      giveUp.abort();
    }
  }
}

/** Read through a call, since it changes while we wait. */
const endingOf = (freeze: Freeze): Freeze['ending'] => freeze.ending;

const freezeFailed = (vm: Guest, run: RunKey, why: string, cause?: unknown): TidemarkError =>
  new TidemarkError(
    'GUEST_FREEZE_FAILED',
    `guest of vm ${vm.vmId} at ${vm.agent} was not frozen for run ${run}: ${why}`,
    { vm: vm.vmId, socket: vm.agent, run },
    cause,
  );

const isEntry = (entry: Partial<FrozenEntry> | null): entry is FrozenEntry =>
  typeof entry?.vmId === 'string' && typeof entry.run === 'string' && typeof entry.agent === 'string';

/** A ledger that cannot be read is taken to say that every guest is frozen: a thaw too many does no harm. */
async function readLedger(file: DurableFile, all: Guest[], { log }: Seams): Promise<FrozenEntry[]> {
  try {
    const content = (await file.read()) as { frozen?: unknown } | undefined;
    if (content === undefined) return [];
    if (!Array.isArray(content.frozen) || !content.frozen.every(isEntry))
      throw new TypeError('it has no list of frozen guests');
    return content.frozen;
  } catch (error) {
    log.error('the ledger of frozen guests is damaged: all guests are thawed', { error: messageOf(error) });
    return all.map((vm) => ({ ...vm, run: 'unknown' as RunKey, deadlineAtMs: 0 }));
  }
}
