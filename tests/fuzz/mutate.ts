/** From inputs that are right, ones that are nearly right. */
import type { Next } from '../fixtures/mover/disks.ts';

/** What the properties speak of: longer inputs may take longer. */
export const MAX_INPUT_BYTES = 64 * 1024;

/** The ends of every width of number, and what one finds just beside them. */
const extremes = [0, 7, 8, 15, 16, 22, 31, 32, 50, 53, 63, 64].flatMap((bits) => {
  const value = 1n << BigInt(bits);
  return [value - 1n, value, value + 1n];
});

type Step = (input: Buffer, next: Next, pool: readonly Buffer[]) => Buffer;
const placeIn = (input: Buffer, next: Next): number => next(Math.max(1, input.length));
const changed = (input: Buffer, change: (copy: Buffer) => void): Buffer => {
  const copy = Buffer.from(input);
  if (copy.length > 0) change(copy);
  return copy;
};

/** A little-endian number of 1, 2, 4 or 8 bytes, mostly where formats have theirs: at a multiple of its width. */
function writeNumber(copy: Buffer, value: bigint, next: Next): void {
  const width = [1, 2, 4, 8][next(4)]!;
  const at = next(4) === 0 ? placeIn(copy, next) : placeIn(copy, next) & ~(width - 1);
  for (let i = 0; i < width && at + i < copy.length; i += 1) copy[at + i] = Number((value >> BigInt(8 * i)) & 0xffn);
}

const flipBit: Step = (input, next) =>
  changed(input, (copy) => {
    copy[placeIn(copy, next)]! ^= 1 << next(8);
  });
const setExtreme: Step = (input, next) =>
  changed(input, (copy) => writeNumber(copy, extremes[next(extremes.length)]!, next));
const setNear: Step = (input, next) =>
  changed(input, (copy) => writeNumber(copy, BigInt.asUintN(64, BigInt(copy.length + next(9) - 4)), next));
const addLittle: Step = (input, next) =>
  changed(input, (copy) => {
    const at = placeIn(copy, next);
    copy[at] = (copy[at]! + 1 + next(8) * 31) & 0xff;
  });
const fill: Step = (input, next) =>
  changed(input, (copy) => {
    const at = placeIn(copy, next);
    copy.subarray(at, at + 1 + next(40)).fill([0, 0xff, next(256)][next(3)]!);
  });
const truncate: Step = (input, next) => input.subarray(0, next(input.length + 1));
const extend: Step = (input, next) => Buffer.concat([input, Buffer.alloc(1 + next(200), next(256))]);
const cutOut: Step = (input, next) => {
  const at = placeIn(input, next);
  return Buffer.concat([input.subarray(0, at), input.subarray(at + 1 + next(64))]);
};
const repeat: Step = (input, next) => {
  const at = placeIn(input, next);
  const piece = input.subarray(at, at + 1 + next(256));
  const times = [1, 1, 2, 1000][next(4)]!;
  return Buffer.concat([input.subarray(0, at), ...Array<Buffer>(times).fill(piece), input.subarray(at)]);
};
/** The beginning of this one, the end of another. */
const splice: Step = (input, next, pool) => {
  const other = pool[next(pool.length)]!;
  return Buffer.concat([input.subarray(0, next(input.length + 1)), other.subarray(next(other.length + 1))]);
};

const binarySteps: Step[] = [
  flipBit,
  setExtreme,
  setExtreme,
  setNear,
  addLittle,
  fill,
  truncate,
  extend,
  cutOut,
  repeat,
  splice,
];

// ---- JSON --------------------------------------------------------------------------------------

/** A text with what follows it when it is a key, a number, a word, or punctuation. */
const token = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|true|false|null|[[\]{}:,]/g;
const list = (...lines: string[]): string[] => lines.flatMap((line) => line.split(' '));
const numbers = list(
  '0 -0 -1 1 5 6 0.5 1e3 1e308 1e999 1e-7 262144 4194304 4194305',
  `1125899906842624 1125899906842625 9007199254740991 9007199254740992 1${'0'.repeat(400)}`,
);
const texts = list(
  String.raw`"" "\u0000" "\ud800" "\n" "../x" "é" "__proto__" "\/" "full" "abcdef012345"`,
  `"${'x'.repeat(4096)}" "${'x'.repeat(4097)}" "${'0'.repeat(64)}" "${'a'.repeat(32)}"`,
);
const others = list('null true false [] {} [[]] [null] {"__proto__":{"a":1}} {"":0,"":1}');
/** Much to look at, and deep to go down. */
const large = [
  '['.repeat(9000) + ']'.repeat(9000),
  '{"a":'.repeat(5000) + '1' + '}'.repeat(5000),
  `[${'0,'.repeat(20_000)}0]`,
  `[${'{},'.repeat(10_000)}{}]`,
  `["${'x","'.repeat(10_000)}"]`,
];
const punctuation = ['[', ']', '{', '}', ':', ',', '', ' ', '\t', '\ufeff'];

/** Mostly by something of the same kind, so that what is wrong is not only the kind. */
const replaceToken: Step = (input, next) => {
  const text = input.toString('utf8');
  const found = [...text.matchAll(token)];
  const hit = found[next(Math.max(1, found.length))];
  if (!hit) return input;
  const [whole, quoted, colon, number] = hit;
  const same = quoted ? texts : number ? numbers : whole.length === 1 ? punctuation : others;
  const kind = next(400);
  const from = kind === 0 ? large : kind < 50 ? others : kind < 90 ? numbers : same;
  const by = from[next(from.length)]! + (colon ?? '');
  return Buffer.from(text.slice(0, hit.index) + by + text.slice(hit.index + whole.length));
};
/** One more time, up to a thousand times, from one token to another: members and items again. */
const repeatTokens: Step = (input, next) => {
  const text = input.toString('utf8');
  const found = [...text.matchAll(/,/g)].map(({ index }) => index);
  const from = found[next(Math.max(1, found.length))] ?? 0;
  const to = found.find((index) => index > from + next(200)) ?? text.length;
  const piece = text.slice(from, to);
  const times = Math.min([1, 1, 2, 1000][next(4)]!, Math.ceil(MAX_INPUT_BYTES / Math.max(1, piece.length)));
  return Buffer.from(text.slice(0, to) + piece.repeat(times) + text.slice(to));
};
const jsonSteps: Step[] = [
  ...Array<Step>(8).fill(replaceToken),
  repeatTokens,
  flipBit,
  truncate,
  cutOut,
  repeat,
  splice,
];

export function mutate(input: Buffer, pool: readonly Buffer[], kind: 'binary' | 'json', next: Next): Buffer {
  // A text is soon no JSON at all.
  const [steps, most] = kind === 'json' ? [jsonSteps, 2] : [binarySteps, 4];
  let mutated = input;
  for (let count = 1 + next(most); count > 0; count -= 1) mutated = steps[next(steps.length)]!(mutated, next, pool);
  return Buffer.from(mutated.subarray(0, MAX_INPUT_BYTES));
}
