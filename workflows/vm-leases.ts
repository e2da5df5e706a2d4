/**
 * What a VM's backup holds: VM lock, host slot, and pairs of proxy and repository slots, numbered from 0. A pair whose
 * proxy has fallen silent is given another proxy; its repository slot stays.
 */
import { CancellationScope } from '@temporalio/workflow';
import type { ProxyId } from '../schema/domain/ids.ts';
import { controlQueue, controlWaitQueue } from '../schema/domain/queues.ts';
import type { HeldLease, ResourceRequest } from '../schema/domain/scheduling.ts';
import { requestOrders } from '../schema/domain/scheduling.ts';
import { viewOf } from './failures.ts';
import { say } from './say.ts';
import type { UndoList } from './undo-list.ts';
import type { VmRun } from './vm-run.ts';

/** Leases of a workflow that is not closed are not freed; somebody who frees them by hand has waited longer than this. */
const FRESH_MS = 15_000;
/** How long a slot of another proxy is waited for before the silent one is tried again. */
const ASK_MS = 30_000;
const REHEARSAL_MS = 60_000;

/** Tries the way from a proxy to the repository; rejects when there is none. */
export type Rehearsal = (proxy: ProxyId) => Promise<void>;

export class VmLeases {
  readonly #run: VmRun;
  /** By request number: 0, and those for other proxies. */
  #held: readonly HeldLease[] = [];
  #grantedMs = 0;
  /** By pair. */
  #proxies: HeldLease[] = [];
  /** Pairs that a disk is on. */
  readonly #busy = new Set<number>();
  /** Found without a way to the repository. */
  readonly #useless = new Set<ProxyId>();
  /** Of what was asked for and not granted, by pair. */
  readonly #asked = new Map<number, number>();
  #lastRequest = 0;
  #again: Promise<void> | null = null;

  constructor(run: VmRun) {
    this.#run = run;
  }

  /** Waits for them; `undo` gives all of them back. */
  async acquire(undo: UndoList): Promise<void> {
    undo.push('leases', () => this.#release(null));
    await this.#take();
  }

  /** Of each pair. */
  get proxies(): readonly ProxyId[] {
    return this.#proxies.map(({ id }) => id as ProxyId);
  }

  /** Disks go over the pair, one after another, until it is left. */
  enter(pair: number): void {
    this.#busy.add(pair);
  }

  leave(pair: number): void {
    this.#busy.delete(pair);
  }

  /** Disks go over a pair of another proxy than this. */
  isBusyElsewhere(proxy: ProxyId): boolean {
    return [...this.#busy].some((pair) => this.#proxyOf(pair).id !== proxy);
  }

  /** The pair's proxy and its machine; the leases confirmed, unless granted not long ago and nothing has gone wrong since. */
  async confirmedProxy(pair: number, isFirst: boolean): Promise<HeldLease> {
    if (!isFirst || Date.now() - this.#grantedMs > FRESH_MS) await this.#confirm();
    return this.#proxyOf(pair);
  }

  /**
   * Gives the pair another proxy than the silent one: of a pair that no disk is on any more, or granted anew. False: there is none, or none is
   * free now, and the pair stays as it is.
   */
  async replace(pair: number, silent: ProxyId, rehearse: Rehearsal): Promise<boolean> {
    const old = this.#proxyOf(pair);
    const busy = new Set([...this.#busy].map((each) => this.#proxyOf(each)));
    const spare = this.#proxies.find((lease) => !busy.has(lease) && lease.id !== silent);
    if (spare) {
      this.#proxies = this.#proxies.map((lease) => (lease === old ? spare : lease === spare ? old : lease));
      return true;
    }
    const fresh = await this.#ask(pair, silent);
    if (fresh === null) return false;
    if (!(await this.#isOfUse(fresh, rehearse))) {
      await this.#giveBack(fresh);
      return false;
    }
    this.#proxies = this.#proxies.map((lease) => (lease === old ? fresh : lease));
    this.#held = [...this.#held, fresh];
    await this.#giveBack(old);
    return true;
  }

  #proxyOf(pair: number): HeldLease {
    return this.#proxies[pair % this.#proxies.length]!;
  }

  async #take(): Promise<void> {
    const request = requestOf(this.#run);
    const summary = 'VM lock, host, proxy and repository slots';
    this.#held = await say('acquireResources', { queue: controlWaitQueue, summary })(request);
    this.#proxies = this.#held.filter(({ kind }) => kind === 'proxy');
    this.#grantedMs = Date.now();
  }

  async #release(leaseIds: number[] | null): Promise<void> {
    await say('releaseResources', { queue: controlQueue })({ workflowId: this.#run.workflowId, leaseIds });
  }

  /** What cannot be given back now is given back at the end. */
  async #giveBack(lease: HeldLease): Promise<void> {
    this.#held = this.#held.filter((each) => each !== lease);
    await this.#release([lease.leaseId]).catch(() => undefined);
  }

  async #confirm(): Promise<void> {
    const held = this.#held;
    const { workflowId } = this.#run;
    try {
      await say('confirmLeases', { queue: controlQueue })({ workflowId, leaseIds: held.map(({ leaseId }) => leaseId) });
    } catch (error) {
      if (viewOf(error).code !== 'LEASE_LOST') throw error;
      // Another disk has given some of them back, or taken all of them again, meanwhile.
      const isOld = this.#lastRequest > 0 && held.some((lease) => !this.#held.includes(lease));
      if (isOld) return await this.#confirm();
      this.#run.note({
        level: 'info',
        code: 'LEASE_LOST',
        message: 'resources are taken again: their leases were freed',
      });
      await this.#takeAgain();
    }
  }

  /** Once a proxy was replaced, what is left of the old grants is given back first: they are not what was asked for under 0. */
  async #takeAgain(): Promise<void> {
    if (this.#lastRequest === 0) return await this.#take();
    this.#again ??= this.#takeAnew().finally(() => (this.#again = null));
    await this.#again;
  }

  async #takeAnew(): Promise<void> {
    await this.#release(null);
    this.#asked.clear();
    await this.#take();
  }

  async #ask(pair: number, silent: ProxyId): Promise<HeldLease | null> {
    const { job, vm } = this.#run.input;
    const requestNumber = this.#asked.get(pair) ?? (this.#lastRequest += 1);
    this.#asked.set(pair, requestNumber);
    const request = requestOf(this.#run);
    const wants = {
      vmId: null,
      hostId: null,
      nearHostId: vm.vm.hostId,
      proxies: job.proxies,
      excludedProxies: [silent, ...this.#useless],
      repositoryId: null,
      pairs: 1,
    };
    const held = await within(ASK_MS, () =>
      say('acquireResources', { queue: controlWaitQueue, summary: `a proxy in place of ${silent}` })({
        ...request,
        requestNumber,
        wants,
      }),
    );
    if (held === null) return null;
    this.#asked.delete(pair);
    return held[0] ?? null;
  }

  async #isOfUse(lease: HeldLease, rehearse: Rehearsal): Promise<boolean> {
    const proxy = lease.id as ProxyId;
    const done = await within(REHEARSAL_MS, async () => {
      await rehearse(proxy);
      return true;
    });
    if (done === null) this.#useless.add(proxy);
    return done !== null;
  }
}

/** What `work` comes to; null when it fails, or is not done in time. A cancellation from outside stays one. */
async function within<T>(ms: number, work: () => Promise<T>): Promise<T | null> {
  try {
    return await CancellationScope.withTimeout(ms, work);
  } catch (error) {
    if (CancellationScope.current().consideredCancelled) throw error;
    return null;
  }
}

function requestOf(run: VmRun): ResourceRequest {
  const { job, vm, manual } = run.input;
  return {
    workflowId: run.workflowId,
    requestNumber: 0,
    runKey: run.run,
    order: requestOrders.backup,
    manual,
    arrivedAt: Date.parse(run.startedAt),
    wants: {
      vmId: vm.vm.vmId,
      hostId: vm.vm.hostId,
      proxies: job.proxies,
      excludedProxies: [],
      repositoryId: job.repositoryId,
      pairs: Math.max(1, vm.diskCount ?? 1),
      ...(vm.expectedBytes == null ? {} : { expectedBytes: vm.expectedBytes }),
    },
  };
}
