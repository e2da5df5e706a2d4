import { beforeEach, describe, expect, test } from 'vitest';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { GuestAgent, GuestCommandResult } from '../agent/guest-agent.ts';
import { resultBefore } from './exec-program.ts';

const ended: GuestCommandResult = {
  exitCode: 0,
  signal: null,
  stdout: Buffer.from('hi'),
  stderr: Buffer.alloc(0),
  truncated: false,
};
const failed = (details: Record<string, unknown>): TidemarkError =>
  new TidemarkError('GUEST_UNREACHABLE', 'guest agent of vm v1 said nothing', details);
/** What the agent says of a call that it did not take up, or took up and left open: each costs five seconds. */
const silences = [failed({ asked: false }), failed({ command: 'guest-exec-status', answered: false }), failed({})];

let nowMs: number;
const clock = {
  now: () => nowMs,
  monotonic: () => nowMs,
  sleep: async (durationMs: number) => void (nowMs += durationMs),
};
/** Gives these in turn, the last one for ever. */
const agentWith = (...polls: (TidemarkError | GuestCommandResult | null)[]): { agent: GuestAgent; left: unknown[] } => {
  const left = [...polls];
  const result = async (): Promise<GuestCommandResult | null> => {
    const next = (left.length > 1 ? left.shift() : left[0])!;
    if (!(next instanceof TidemarkError)) return next;
    nowMs += 5000;
    throw next;
  };
  return { agent: { result } as unknown as GuestAgent, left };
};

beforeEach(() => {
  nowMs = 0;
});

describe('the end of a program in a guest', () => {
  test.each(silences)('is asked for again when the guest does not answer: $details', async (silence) => {
    const { agent } = agentWith(null, silence, silence, null, ended);
    expect(await resultBefore(42, agent, clock, 60_000)).toMatchObject({ exitCode: 0, stdout: 'aGk=' });
  });

  test('is not asked for again when the guest refuses to say', async () => {
    const refusal = failed({ answered: true });
    const { agent, left } = agentWith(null, refusal, ended);
    await expect(resultBefore(42, agent, clock, 60_000)).rejects.toBe(refusal);
    expect(left).toEqual([ended]);
  });

  test('is not known of a guest that is silent until the limit, and it is the silence that is told', async () => {
    const { agent } = agentWith(null, silences[0]!);
    await expect(resultBefore(42, agent, clock, 60_000)).rejects.toBe(silences[0]);
    expect(nowMs).toBeGreaterThanOrEqual(60_000);
  });

  test('has not come of a program that still runs at the limit, silent or not before', async () => {
    const { agent } = agentWith(silences[0]!, null);
    expect(await resultBefore(42, agent, clock, 60_000)).toBeNull();
  });
});
