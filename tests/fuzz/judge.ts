/** What has to hold of every input, whatever it is. */
import { isDeepStrictEqual } from 'node:util';
import { messageOf, TidemarkError, type ErrorCode } from '../../schema/domain/errors.ts';
import type { Next } from '../fixtures/mover/disks.ts';

/** For inputs of at most MAX_INPUT_BYTES. */
const MAX_PARSE_MS = 50;

export type FuzzTarget<T = unknown> = {
  name: string;
  kind: 'binary' | 'json';
  seeds: readonly Buffer[];
  /** Makes sums right again as far as the bytes allow it, so that the fields behind them are judged. */
  mend: (input: Buffer, next: Next) => Buffer;
  /** Null: refused. May throw errors of `codes`. */
  parse: (input: Buffer) => T | null;
  codes: readonly ErrorCode[];
  /** Limit of what is allocated for an input; not counting views of it. */
  maxAllocatedBytes: (inputBytes: number) => number;
  /** Of what was accepted: what is wrong with it, or null. Mostly: whether it comes back when it is encoded. */
  flaw: (parsed: T, input: Buffer) => string | null;
};

/** Hides the type of what is parsed, so that targets can stand in one list. */
export const fuzzTarget = <T>(target: FuzzTarget<T>): FuzzTarget => target as FuzzTarget;

const allocators = ['alloc', 'allocUnsafe', 'allocUnsafeSlow'] as const;

/** Runs `work`; bytes asked of Buffer's allocators, also by what throws. */
function countingBytes(work: () => void): number {
  const originals = allocators.map((name) => Buffer[name]);
  let bytes = 0;
  for (const name of allocators) {
    const original = Buffer[name] as (size: number, ...rest: unknown[]) => Buffer;
    const counting = (size: number, ...rest: unknown[]): Buffer => {
      bytes += size;
      return original.call(Buffer, size, ...rest);
    };
    Object.defineProperty(Buffer, name, { value: counting, configurable: true, writable: true });
  }
  try {
    work();
  } finally {
    for (const [index, name] of allocators.entries())
      Object.defineProperty(Buffer, name, { value: originals[index], configurable: true, writable: true });
  }
  return bytes;
}

/** Of this thread. */
export const cpuMs = (): number => {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
};

/** The machine may be busy with something else: the fastest of several counts, by this thread's own time. */
function fastestMs(work: () => void): number {
  let fastest = Infinity;
  for (let time = 0; time < 5 && fastest > MAX_PARSE_MS; time += 1) {
    const before = cpuMs();
    work();
    fastest = Math.min(fastest, cpuMs() - before);
  }
  return fastest;
}

export type Verdict = { accepted: boolean; problem: string | null };
const wrong = (problem: string): Verdict => ({ accepted: false, problem });

export function judge(target: FuzzTarget, input: Buffer): Verdict {
  const before = Buffer.from(input);
  let outcome: { parsed: unknown } | { error: unknown } = { parsed: null };
  const parse = (): void => {
    try {
      outcome = { parsed: target.parse(input) };
    } catch (error) {
      outcome = { error };
    }
  };
  const startedAt = performance.now();
  const allocated = countingBytes(parse);
  const isSlow = performance.now() - startedAt > MAX_PARSE_MS;
  const result = outcome as { parsed?: unknown; error?: unknown };
  if (!input.equals(before)) return wrong('the parser changed its input');
  if (allocated > target.maxAllocatedBytes(input.length)) return wrong(`${allocated} bytes were allocated`);
  if (isSlow) {
    const takenMs = fastestMs(parse);
    if (takenMs > MAX_PARSE_MS) return wrong(`it took ${takenMs.toFixed(1)} ms`);
  }
  if ('error' in result) return judgeError(target, result.error);
  return result.parsed === null ? { accepted: false, problem: null } : judgeParsed(target, result.parsed, input);
}

function judgeError(target: FuzzTarget, error: unknown): Verdict {
  if (error instanceof TidemarkError && target.codes.includes(error.code)) return { accepted: false, problem: null };
  const code = error instanceof TidemarkError ? error.code : (error as Error).constructor.name;
  return wrong(`it threw ${code}: ${messageOf(error).slice(0, 300)}`);
}

function judgeParsed(target: FuzzTarget, parsed: unknown, input: Buffer): Verdict {
  try {
    return { accepted: true, problem: target.flaw(parsed, input) };
  } catch (error) {
    return wrong(`what was accepted cannot be encoded: ${messageOf(error).slice(0, 300)}`);
  }
}

/**
 * For formats in which one value has several encodings, ours the shortest: `again` decodes to the same, is not longer
 * than `was`, and the same bytes when it is as long.
 */
export function encodingFlaw(was: Buffer, again: Buffer, decoded: unknown, decodedAgain: unknown): string | null {
  if (!isDeepStrictEqual(decoded, decodedAgain)) return 'encoded and decoded again it is something else';
  if (again.length > was.length) return `it is encoded in ${again.length} bytes instead of ${was.length}`;
  return again.length < was.length || again.equals(was) ? null : 'it is encoded in other bytes';
}

/** For formats in which one value has one encoding. */
export const bytesFlaw = (was: Buffer, again: Buffer): string | null =>
  again.equals(was) ? null : `it is encoded in other bytes: ${again.toString('hex').slice(0, 600)}`;
