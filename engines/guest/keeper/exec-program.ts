/** One program in a guest: its start, its end, and its place behind the others of its run. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { VmId } from '../../../schema/domain/ids.ts';
import type { Clock } from '../../../schema/domain/seams.ts';
import type { GuestAgent } from '../agent/guest-agent.ts';
import type { ExecResult } from './protocol.ts';

type Keyed = { vmId: VmId; key: string };
/** `key`: `<run>.<place>`. */
export type ExecOrder = Keyed & { path: string; args: string[]; timeoutMs: number };
export type Entry = Keyed & { path: string; pid: number | null; result: ExecResult | null };
export const keyOf = ({ vmId, key }: Keyed): string => `${vmId}/${key}`;

/** Output kept of each, bytes of base64. */
const maxOutput = 64 * 1024;
const pollMs = 200;
/** How long an agent that cannot be asked to start a program is tried again: right after a thaw it may be busy. */
const startPatienceMs = 20_000;

/** Its process id. */
export async function startProgram(order: ExecOrder, agent: GuestAgent, clock: Clock): Promise<number> {
  const end = clock.monotonic() + Math.min(order.timeoutMs, startPatienceMs);
  for (;;) {
    try {
      return await agent.start({ path: order.path, args: order.args, capture: true });
    } catch (error) {
      if (!hasDetail(error, 'asked', false) || clock.monotonic() >= end) throw error;
      await clock.sleep(pollMs);
    }
  }
}

/** Refused in so many words, or not even asked for. */
export const didNotRun = (error: unknown): boolean =>
  hasDetail(error, 'answered', true) || hasDetail(error, 'asked', false);

const hasDetail = (error: unknown, name: string, value: boolean): boolean =>
  error instanceof TidemarkError && error.details[name] === value;

/**
 * Null: it still runs at `end`, ms of the monotonic clock. A guest that its program keeps too busy to answer is asked
 * again until then; what it refuses in so many words is thrown at once.
 */
export async function resultBefore(
  pid: number,
  agent: GuestAgent,
  clock: Clock,
  end: number,
): Promise<ExecResult | null> {
  let unanswered: unknown = null;
  while (clock.monotonic() < end) {
    try {
      const ended = await agent.result(pid);
      if (ended) return asResult(ended);
      unanswered = null;
    } catch (error) {
      if (!(error instanceof TidemarkError) || hasDetail(error, 'answered', true)) throw error;
      unanswered = error;
    }
    await clock.sleep(pollMs);
  }
  if (unanswered) throw unanswered;
  return null;
}

type Known = { entries: readonly Entry[]; running: ReadonlyMap<string, Promise<ExecResult>>; clock: Clock };

/** Of one run, the next begins when those before have ended: a late pre-freeze must not undo a post-thaw. */
export async function afterOthers(order: ExecOrder, agent: GuestAgent, known: Known): Promise<void> {
  const { entries, running, clock } = known;
  const end = clock.monotonic() + order.timeoutMs;
  for (const other of entries.filter((each) => each.result === null && areOfOneRun(each, order))) {
    const performing = running.get(keyOf(other))?.catch(() => undefined);
    if (performing) await Promise.race([performing, clock.sleep(Math.max(0, end - clock.monotonic()))]);
    if (other.pid !== null) other.result ??= await resultBefore(other.pid, agent, clock, end).catch(() => null);
  }
}

const runOf = ({ key }: Keyed): string => key.split('.')[0]!;
const areOfOneRun = (one: Keyed, other: Keyed): boolean =>
  one.vmId === other.vmId && one.key !== other.key && runOf(one) === runOf(other);

function asResult(ended: NonNullable<Awaited<ReturnType<GuestAgent['result']>>>): ExecResult {
  const keep = (output: Buffer): string => output.subarray(0, (maxOutput / 4) * 3).toString('base64');
  const cut = Math.max(ended.stdout.length, ended.stderr.length) > (maxOutput / 4) * 3;
  return {
    exitCode: ended.exitCode,
    signal: ended.signal,
    stdout: keep(ended.stdout),
    stderr: keep(ended.stderr),
    truncated: ended.truncated || cut,
  };
}
