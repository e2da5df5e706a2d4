/** What is done in a guest before the freeze, after the thaw and after the seal: through the guest keeper, or not at all. */
import type { KeeperClient } from '../../engines/guest/keeper/client.ts';
import { errorCodeOf, messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { Capabilities, VmRef } from '../../schema/domain/hypervisor.ts';
import type { RunKey } from '../../schema/domain/ids.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import type { Finding } from '../../schema/domain/states.ts';
import { beatingUntilCancelled } from '../beating.ts';
import type { GuestActivities } from '../contract.ts';
import { translating } from '../failures.ts';
import { runGuestScript, type ScriptPlace } from './guest-scripts.ts';

export type GuestAccess = Pick<KeeperClient, 'status' | 'exec' | 'vms'> & {
  freezer: Pick<KeeperClient['freezer'], 'thaw'>;
};
export type GuestDependencies = {
  /** Null: this host's VMs have no agent that could be reached. */
  guests: GuestAccess | null;
  quiesce: Capabilities['quiesce'];
  clock: Clock;
};
type Of = { vm: VmRef; run: RunKey };
type Script = Parameters<GuestActivities['thawGuest']>[0]['script'];

/** These verbs are tried once: a keeper that is being restarted is waited for here. */
const KEEPER_PATIENCE_MS = 15_000;
const KEEPER_PAUSE_MS = 250;

export function createGuestActivities(dependencies: GuestDependencies): GuestActivities {
  const verbs = new GuestVerbs(dependencies);
  return translating({
    prepareGuest: (of) => beatingUntilCancelled(() => verbs.prepare(of)),
    thawGuest: (of) => beatingUntilCancelled(() => verbs.thaw(of)),
    completeGuest: (of) => beatingUntilCancelled(() => verbs.scripted(of, 'success', of.script)),
  } satisfies GuestActivities);
}

class GuestVerbs {
  readonly #guests: GuestAccess | null;
  readonly #quiesce: Capabilities['quiesce'];
  readonly #clock: Clock;

  constructor({ guests, quiesce, clock }: GuestDependencies) {
    this.#guests = guests;
    this.#quiesce = quiesce;
    this.#clock = clock;
  }

  async prepare(of: Parameters<GuestActivities['prepareGuest']>[0]): Promise<{ warnings: Finding[] }> {
    const { vm, consistency, script } = of;
    if (consistency === 'none' && script === null) return { warnings: [] };
    // It freezes without an agent; only a script would need one.
    if (this.#quiesce === 'hypervisor' && script === null) return { warnings: [] };
    try {
      const guests = this.#reach(vm);
      if (await this.#isOff(guests, vm)) return { warnings: [offFinding(vm)] };
      if (script) await this.#run(of, 'pre-freeze', script);
      return { warnings: [] };
    } catch (error) {
      if (consistency !== 'require') return { warnings: [warningOf(error)] };
      throw new TidemarkError('GUEST_REQUIRED', messageOf(error), { vmId: vm.vmId }, error);
    }
  }

  async thaw(of: Of & { script: Script }): Promise<{ warnings: Finding[] }> {
    const guests = this.#guests;
    if (guests) {
      // Asked of the keeper's ledger, not of the guest: one that was never frozen may well be silent.
      const frozen = (await this.#patient(() => guests.vms())).find(({ vmId }) => vmId === of.vm.vmId)?.frozen;
      if (frozen?.run === of.run) await this.#patient(() => guests.freezer.thaw(of.vm, of.run));
    }
    return await this.scripted(of, 'post-thaw', of.script);
  }

  async scripted(of: Of, place: ScriptPlace, script: Script): Promise<{ warnings: Finding[] }> {
    if (script === null) return { warnings: [] };
    try {
      await this.#run(of, place, script);
      return { warnings: [] };
    } catch (error) {
      return { warnings: [warningOf(error)] };
    }
  }

  async #run({ vm, run }: Of, place: ScriptPlace, script: NonNullable<Script>): Promise<void> {
    const guests = this.#reach(vm);
    await this.#patient(() => runGuestScript(guests, { vm, run, place, script }));
  }

  #reach(vm: VmRef): GuestAccess {
    if (this.#guests) return this.#guests;
    throw new TidemarkError('GUEST_UNREACHABLE', `VM ${vm.vmId} has no guest agent: host ${vm.hostId} knows none`, {
      vmId: vm.vmId,
    });
  }

  /** False: its agent answers. A VM whose hypervisor process does not run has no guest to prepare. */
  async #isOff(guests: GuestAccess, vm: VmRef): Promise<boolean> {
    try {
      await this.#patient(() => guests.status(vm));
      return false;
    } catch (error) {
      const state = (await guests.vms().catch(() => [])).find(({ vmId }) => vmId === vm.vmId);
      if (errorCodeOf(error) === 'GUEST_UNREACHABLE' && state?.monitor === 'off') return true;
      throw error;
    }
  }

  async #patient<T>(work: () => Promise<T>): Promise<T> {
    const startedMs = this.#clock.monotonic();
    for (;;) {
      try {
        return await work();
      } catch (error) {
        const isLate = this.#clock.monotonic() - startedMs > KEEPER_PATIENCE_MS;
        if (errorCodeOf(error) !== 'UNREACHABLE' || isLate) throw error;
        await this.#clock.sleep(KEEPER_PAUSE_MS);
      }
    }
  }
}

const warningOf = (error: unknown): Finding => ({
  level: 'warning',
  code: errorCodeOf(error) ?? 'BUG',
  message: messageOf(error),
});
const offFinding = (vm: VmRef): Finding => ({
  level: 'info',
  code: 'VM_OFF',
  message: `VM ${vm.vmId} is off: there is no guest to prepare`,
});
