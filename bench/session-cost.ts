/**
 * `node bench/session-cost.ts [sessions]`: what a session costs besides its data, and where that time goes. The image of a simulated VM
 * is backed up again and again, and nothing has changed in it. Exit code 1 when the median is above the bar. See README.md beside it.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type History, Product } from './backup/product.ts';
import { makeImage } from './repository/image.ts';
import { MIB } from './repository/report.ts';
import { boundsOf, type Share, shares, sharesOf, spansOf } from './session-cost/time-line.ts';

const BAR_MS = 800;
const IMAGE_BYTES = 512 * MIB;
/** Code is compiled and buffers are made in the first ones. */
const WARM_UP = 3;
const sessions = Number(process.argv[2] ?? 15);

type Session = { tookMs: number; cpuMs: number; histories: History[] };

async function measure(product: Product): Promise<Session[]> {
  await product.freshRepository();
  await product.session('full');
  const all: Session[] = [];
  for (let i = 0; i < sessions + WARM_UP; i += 1) {
    const { seconds, cpuSeconds } = await product.session('cbt');
    all.push({ tookMs: seconds * 1000, cpuMs: cpuSeconds * 1000, histories: await product.histories() });
  }
  return all.slice(WARM_UP);
}

const byTime = (all: readonly Session[]): Session[] => all.toSorted((a, b) => a.tookMs - b.tookMs);
const medianOf = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

/** Every step of one session, in order; milliseconds since its start. */
function showSteps({ histories }: Session): void {
  const { fromMs } = boundsOf(histories);
  const spans = histories.flatMap(spansOf).toSorted((a, b) => a.fromMs - b.fromMs);
  for (const { share, what, fromMs: at, untilMs } of spans)
    console.log(`${(at - fromMs).toFixed(0).padStart(6)} ${(untilMs - at).toFixed(1).padStart(7)}  ${what}: ${share}`);
}

function showShares(all: readonly Session[]): void {
  const each = all.map(({ histories }) => sharesOf(histories));
  const medians = (share: Share): number => medianOf(each.map((of) => of.get(share)!));
  for (const share of shares) console.log(`${medians(share).toFixed(0).padStart(6)} ms  ${share}`);
}

const root = await mkdtemp(path.join(os.tmpdir(), 'td-bench-'));
try {
  const image = makeImage(path.join(root, 'image'), { folder: '/usr', sizeBytes: IMAGE_BYTES, seed: 1 });
  const product = await Product.start(image);
  try {
    const all = await measure(product);
    const sorted = byTime(all);
    const middle = sorted[Math.floor(sorted.length / 2)]!;
    showSteps(middle);
    showShares(all);
    const cpuMs = medianOf(all.map((one) => one.cpuMs));
    console.log(
      `${sessions} sessions: median ${middle.tookMs.toFixed(0)} ms, from ${sorted[0]!.tookMs.toFixed(0)} to ${sorted.at(-1)!.tookMs.toFixed(0)}; ` +
        `${cpuMs.toFixed(0)} ms of processor; must be below ${BAR_MS}`,
    );
    process.exitCode = middle.tookMs < BAR_MS ? 0 : 1;
  } finally {
    await product.close();
  }
} finally {
  await rm(root, { recursive: true, force: true });
}
