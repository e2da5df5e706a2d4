/**
 * Looks after held checkpoints of running VMs while this worker lives: when the scratch space is full or over its limit,
 * or a backup job ends by another hand, the point in time is gone. Then readers are cut off at once, instead of reading
 * bytes of another time until the release refuses them.
 */
import { messageOf } from '../../../schema/domain/errors.ts';
import type { GuestEvent, Reason } from '../../../schema/domain/hypervisor.ts';
import type { RunKey } from '../../../schema/domain/ids.ts';
import type { MonitorEvent } from '../../../schema/domain/seams.ts';
import { type Context, isOfRun } from './context.ts';
import { whyNotHeld } from './holder.ts';
import type { RunState } from './run-states.ts';
import { scratchUse } from './scratch.ts';

export type Guards = {
  /** Again for the same run: nothing. */
  begin(state: RunState): void;
  end(run: RunKey): void;
  close(): Promise<void>;
};

const POLL_MS = 1000;
/** A VM that cannot be asked may be so for days. */
const MAX_WAIT_MS = 30_000;
const SCRATCH_FULL: Reason = { code: 'SCRATCH_FULL', message: 'the scratch space is full; the guest was let go on' };

/** `lose` ends the checkpoint; it is told again until it could. */
export function createGuards(context: Context, lose: (run: RunKey, why: Reason) => Promise<void>): Guards {
  const guards = new Map<RunKey, { stop: AbortController; ended: Promise<unknown> }>();
  const begin = (state: RunState): void => {
    if (state.heldBy !== 'vm' || guards.has(state.run)) return;
    const stop = new AbortController();
    const { signal } = stop;
    const found = Promise.race([hear(context, state, signal), measure(context, state.run, signal)]);
    const ended = found.then((why) => why && giveUp(context, stop, () => lose(state.run, why)));
    guards.set(state.run, { stop, ended });
  };
  const end = (run: RunKey): void => {
    guards.get(run)?.stop.abort();
    guards.delete(run);
  };
  return {
    begin,
    end,
    close: async () => {
      const all = [...guards.values()];
      for (const run of guards.keys()) end(run);
      await Promise.all(all.map(({ ended }) => ended));
    },
  };
}

async function giveUp({ seams }: Context, stop: AbortController, lose: () => Promise<void>): Promise<void> {
  for (let waitMs = POLL_MS; !stop.signal.aborted; waitMs = Math.min(2 * waitMs, MAX_WAIT_MS)) {
    try {
      await lose();
      stop.abort();
    } catch (error) {
      seams.log.warn('a lost checkpoint could not be ended yet', { cause: messageOf(error) });
      await seams.clock.sleep(waitMs, stop.signal).catch(() => undefined);
    }
  }
}

/** Null: aborted. A keeper that restarts is heard again, and what happened meanwhile is asked for. */
async function hear(context: Context, state: RunState, signal: AbortSignal): Promise<Reason | null> {
  while (!signal.aborted) {
    const hearing = new AbortController();
    try {
      const events = context.monitorOf(state.vm.vmId).events(AbortSignal.any([signal, hearing.signal]));
      const missed = await whyNotHeld(context, state);
      const why = missed === null ? await lossIn(context, state.run, events) : lostFor(missed);
      if (why) return why;
    } catch (error) {
      context.seams.log.debug('the events of a VM cannot be heard', { vm: state.vm.vmId, cause: messageOf(error) });
    } finally {
      hearing.abort();
    }
    await context.seams.clock.sleep(POLL_MS, signal).catch(() => undefined);
  }
  return null;
}

const lostFor = (message: string): Reason => ({ code: 'CHECKPOINT_LOST', message });

async function lossIn(context: Context, run: RunKey, events: AsyncIterable<MonitorEvent>): Promise<Reason | null> {
  const isJob = isOfRun(context, run, ['job']);
  let noSpace = false;
  for await (const { event, data } of events) {
    if (event === 'scratch-full' && data['run'] === run) return SCRATCH_FULL;
    noSpace ||= event === 'BLOCK_IO_ERROR' && data['nospace'] === true;
    const ended = event === 'BLOCK_JOB_CANCELLED' || event === 'BLOCK_JOB_COMPLETED';
    if (ended && isJob(String(data['device'])))
      return noSpace ? SCRATCH_FULL : lostFor(`${event} of ${String(data['device'])}`);
  }
  return null;
}

/** All scratch files count; the run that takes most has to go. Null: aborted. */
async function measure({ host, site, seams }: Context, run: RunKey, signal: AbortSignal): Promise<Reason | null> {
  const { folder, maxBytes } = host.scratch;
  while (!signal.aborted) {
    const uses = await scratchUse(host.scratch, site);
    const usedBytes = uses.reduce((sum, use) => sum + use.usedBytes, 0);
    const largest = uses.toSorted((a, b) => b.usedBytes - a.usedBytes)[0];
    if (usedBytes > maxBytes && largest?.run === run) {
      const message = `scratch folder ${folder} holds ${usedBytes} bytes, over its limit ${maxBytes}`;
      return { code: 'SCRATCH_FULL', message };
    }
    await seams.clock.sleep(POLL_MS, signal).catch(() => undefined);
  }
  return null;
}

/** What a VM's monitor tells, in our words. Ends as `off` when the monitor does; of a VM that is off nothing is heard. */
export async function* guestEvents(context: Context, state: RunState, signal: AbortSignal): AsyncGenerator<GuestEvent> {
  const at = (): string => new Date(context.seams.clock.now()).toISOString();
  if (state.heldBy === 'daemon') {
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    return;
  }
  for await (const event of context.monitorOf(state.vm.vmId).events(signal)) {
    const told = tell(state.run, event);
    if (told) yield { ...told, at: new Date(event.atMs).toISOString() };
  }
  if (!signal.aborted) yield { kind: 'off', at: at(), detail: 'the monitor of the VM was closed' };
}

function tell(run: RunKey, { event, data }: MonitorEvent): Omit<GuestEvent, 'at'> | null {
  switch (event) {
    case 'scratch-full':
      return data['run'] === run ? { kind: 'scratch-full', detail: SCRATCH_FULL.message } : null;
    case 'STOP':
      return { kind: 'paused', detail: 'the guest was paused' };
    case 'SHUTDOWN':
      return { kind: 'off', detail: `the guest was shut down: ${JSON.stringify(data['reason'] ?? 'no reason given')}` };
    case 'MIGRATION':
      return data['status'] === 'completed' ? { kind: 'moved', detail: 'the VM was migrated to another host' } : null;
    default:
      return null;
  }
}
