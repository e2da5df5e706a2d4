/** What a VM's backup holds of the site's resources, and whether that is still so. */
import type { MachineId, ProxyId } from '../schema/domain/ids.ts';
import { controlQueue } from '../schema/domain/queues.ts';
import type { HeldLease } from '../schema/domain/scheduling.ts';
import { viewOf } from './failures.ts';
import { say } from './say.ts';
import type { VmRun } from './vm-run.ts';

/** Leases of a workflow that is not closed are not freed; somebody who frees them by hand has waited longer than this. */
const FRESH_MS = 15_000;

export const proxiesOf = (leases: readonly HeldLease[]): ProxyId[] =>
  leases.filter((lease) => lease.kind === 'proxy').map((lease) => lease.id as ProxyId);

export class VmLeases {
  readonly #take: () => Promise<HeldLease[]>;
  #held: readonly HeldLease[];
  #machines: Partial<Record<ProxyId, MachineId>> = {};
  #confirmedMs = Number.NEGATIVE_INFINITY;

  /** `take`: again, after they were lost. */
  constructor(held: readonly HeldLease[], take: () => Promise<HeldLease[]>) {
    this.#held = held;
    this.#take = take;
  }

  /** As granted last; pairs are numbered from 0. */
  held = (): readonly HeldLease[] => this.#held;
  /** Confirmed not long ago. */
  isFresh = (): boolean => Date.now() - this.#confirmedMs < FRESH_MS;
  /** As it was confirmed last: whom a repository of another machine lets in. */
  machineOf = (proxy: ProxyId): MachineId | undefined => this.#machines[proxy];

  /** Lost ones are taken again. */
  async confirm(run: VmRun): Promise<void> {
    try {
      await this.#ask(run);
    } catch (error) {
      if (viewOf(error).code !== 'LEASE_LOST') throw error;
      run.note({ level: 'info', code: 'LEASE_LOST', message: 'resources are taken again: their leases were freed' });
      this.#held = await this.#take();
      await this.#ask(run);
    }
  }

  async #ask({ workflowId }: VmRun): Promise<void> {
    const leaseIds = this.#held.map((lease) => lease.leaseId);
    const { machines } = await say('confirmLeases', { queue: controlQueue })({ workflowId, leaseIds });
    this.#machines = machines;
    this.#confirmedMs = Date.now();
  }
}
