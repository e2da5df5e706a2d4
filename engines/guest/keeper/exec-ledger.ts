/**
 * Programs run in guests, by key: scripts are not idempotent, and the agent tells the end of one only once. So the
 * start and the result are written down, and a key that is asked for again is answered from there.
 */
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import type { GuestAgent } from '../agent/guest-agent.ts';
import { durableFile } from './durable-file.ts';
import {
  afterOthers,
  didNotRun,
  type Entry,
  type ExecOrder,
  keyOf,
  resultBefore,
  startProgram,
} from './exec-program.ts';
import type { ExecResult } from './protocol.ts';

/** Entries kept, oldest dropped first. */
const maxEntries = 200;

export function createExecLedger(stateFolder: string, seams: Seams) {
  const file = durableFile(`${stateFolder}/scripts.json`);
  const running = new Map<string, Promise<ExecResult>>();
  let entries = new Map<string, Entry>();
  const save = (): Promise<void> => file.write(() => ({ version: 1, scripts: [...entries.values()] }));

  const enter = (entry: Entry): void => {
    entries.set(keyOf(entry), entry);
    for (const key of entries.keys()) {
      if (entries.size <= maxEntries) break;
      if (!running.has(key)) entries.delete(key);
    }
  };

  /** Refused in so many words or not even asked for, it did not run: the key is free again. */
  const forget = async (order: ExecOrder): Promise<void> => {
    entries.delete(keyOf(order));
    await save();
  };

  const perform = async (order: ExecOrder, agent: GuestAgent): Promise<ExecResult> => {
    const known = entries.get(keyOf(order));
    if (known?.result) return known.result;
    const entry = known ?? { vmId: order.vmId, key: order.key, path: order.path, pid: null, result: null };
    // Entered before it starts: if we die now, whether it ran is not known, and it is not run a second time.
    if (known?.pid === null) throw unknownEnd(order, 'it was being started when the guest keeper ended');
    if (!known) {
      await afterOthers(order, agent, { entries: [...entries.values()], running, clock: seams.clock });
      enter(entry);
      await save();
      entry.pid = await startProgram(order, agent, seams.clock).catch(async (error: unknown) => {
        if (didNotRun(error)) await forget(order);
        throw error;
      });
      await save();
    }
    const end = seams.clock.monotonic() + order.timeoutMs;
    entry.result = await resultBefore(entry.pid!, agent, seams.clock, end);
    if (!entry.result) throw unknownEnd(order, `it still runs after ${order.timeoutMs} ms`);
    await save();
    return entry.result;
  };

  return {
    start: async (): Promise<void> => {
      const content = await file.read().catch((error: unknown) => {
        seams.log.error('the ledger of guest scripts is damaged: it begins anew', { error: messageOf(error) });
      });
      const scripts = (content as { scripts?: Entry[] } | undefined)?.scripts ?? [];
      entries = new Map(scripts.map((entry) => [keyOf(entry), entry]));
    },
    /** GUEST_UNREACHABLE also when the result is not known or not yet there; then nothing is run again under this key. */
    run: (order: ExecOrder, agent: GuestAgent): Promise<ExecResult> => {
      const key = keyOf(order);
      const already = running.get(key);
      if (already) return already;
      const run = perform(order, agent).finally(() => running.delete(key));
      running.set(key, run);
      return run;
    },
  };
}

const unknownEnd = (order: ExecOrder, why: string): TidemarkError =>
  new TidemarkError(
    'GUEST_UNREACHABLE',
    `end of ${order.path} (${order.key}) in vm ${order.vmId} is not known: ${why}`,
    {
      vm: order.vmId,
      key: order.key,
    },
  );
