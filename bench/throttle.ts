/**
 * How exactly transfers are held to a rate: `node bench/throttle.ts`. Payload bytes as they leave, counted each 10 ms at the
 * target's end of all connections together, over 10 s after the first.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import path from 'node:path';
import { createSourcePool } from '../engines/mover/source/pool.ts';
import { startMoverTarget } from '../engines/mover/target/mover-target.ts';
import { Throttle, type ThrottledConnection } from '../engines/mover/throttle/throttle.ts';
import { TidemarkError } from '../schema/domain/errors.ts';
import { diskKey } from '../schema/domain/ids.ts';
import { orderOf } from '../tests/fixtures/mover/disks.ts';
import { MemoryRepository } from '../tests/fixtures/mover/memory-repository.ts';
import { registrarPerDisk } from '../tests/fixtures/mover/registrar-per-disk.ts';
import { createSeams } from '../workers/runtime/seams.ts';
import type { DiskModel } from './mover/disk-model.ts';

const MIB = 1024 * 1024;
/** A disk that stands still for a while makes up for nothing: packs are written to memory. */
const MEMORY = '/dev/shm';
const SAMPLE_MS = 10;
const SPAN_MS = 10_000;
const WARM_UP_MS = 1000;
/** MiB per second; 0: what the machine does when nobody holds it back. */
const rates = [0, 4, 20, 100];
const counts = [1, 4];
const sourceLane = new URL('./mover/source-lane.ts', import.meta.url);
const fixture = (name: string): URL => new URL(`../tests/fixtures/mover/${name}.ts`, import.meta.url);

type Sample = { atMs: number; bytes: number };
type Row = { average: number; worstSecond: number };

/** Bytes that all lanes have received, whenever they are asked. */
async function sample(lanes: Set<ThrottledConnection['lane']>, samples: Sample[], stop: AbortSignal): Promise<void> {
  while (!stop.aborted) {
    const usages = await Promise.all([...lanes].map((lane) => lane.usage()));
    const bytes = usages.flatMap((usage) => Object.values(usage)).reduce((sum, each) => sum + each, 0);
    // Counted from the first byte: threads have to start, too.
    if (bytes > 0) samples.push({ atMs: performance.now(), bytes });
    await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
  }
}

/** What went over any second, at most. */
function worstSecond(samples: readonly Sample[]): number {
  let most = 0;
  let first = 0;
  for (const { atMs, bytes } of samples) {
    while (samples[first]!.atMs < atMs - 1000) first += 1;
    most = Math.max(most, bytes - samples[first]!.bytes);
  }
  return most;
}

async function measure(folder: string, rate: number, transfers: number): Promise<Row> {
  const model: DiskModel = { kind: 'full', sizeBytes: 16_384 * MIB };
  const { sizeBytes } = model;
  const seams = createSeams('bench');
  const throttle = new Throttle(seams);
  const writeBytesPerSecond = rate === 0 ? null : rate * MIB;
  throttle.configure({
    networks: null,
    repositories: new Map([['main', { readBytesPerSecond: null, writeBytesPerSecond }]]),
  });
  const lanes = new Set<ThrottledConnection['lane']>();
  const own = throttle.ofRepository('main');
  const packs = await mkdtemp(path.join(folder, 'packs-'));
  const target = await startMoverTarget({
    listen: { unix: path.join(packs, 'sock', 'mover') },
    laneCount: 2,
    laneEntry: fixture('target-lane'),
    laneData: { folder: packs },
    registrar: registrarPerDisk(packs, new Map()),
    restoreSource: new MemoryRepository(path.join(packs, 'none')).restoreSource(0, MIB),
    throttle: {
      begin: (connection) => {
        lanes.add(connection.lane);
        return own.begin(connection);
      },
      end: (name) => own.end(name),
    },
    seams,
  });
  const pool = createSourcePool({ laneCount: 4, laneEntry: sourceLane, seams });
  const stop = new AbortController();
  const running = Array.from({ length: transfers }, (_, index) => {
    const order = orderOf({
      disk: { file: '' },
      sizeBytes,
      blockSize: MIB,
      compression: 'none',
      endpoint: target.endpoint,
    });
    const disk = { diskKey: diskKey(`d${index}`) };
    const data = { via: 'simulated' as const, model: JSON.stringify(model) };
    const of = { access: { ...order.access, ...disk, data }, assignment: { ...order.assignment, ...disk } };
    return pool.transfer({ ...of, signal: stop.signal }).catch((error: unknown) => {
      if (!(error instanceof TidemarkError) || error.code !== 'STOPPED') throw error;
    });
  });
  const samples: Sample[] = [];
  const measured = new AbortController();
  const sampling = sample(lanes, samples, measured.signal);
  while (samples.length === 0) await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
  await new Promise((resolve) => setTimeout(resolve, WARM_UP_MS + SPAN_MS));
  // Before the connections end, and what they carried is no longer told.
  measured.abort();
  await sampling;
  stop.abort(new TidemarkError('STOPPED', 'measured'));
  await Promise.all(running);
  await pool.close();
  await target.close();
  throttle.close();
  await rm(packs, { recursive: true });
  const from = samples.find(({ atMs }) => atMs >= samples[0]!.atMs + WARM_UP_MS)!;
  const last = samples.at(-1)!;
  const average = ((last.bytes - from.bytes) * 1000) / (last.atMs - from.atMs);
  return { average, worstSecond: worstSecond(samples) };
}

const folder = await mkdtemp(path.join(MEMORY, 'td-bench-throttle-'));
try {
  console.log('| rate | transfers | average over 10 s | most in any second |');
  console.log('|---|---|---|---|');
  for (const rate of rates)
    for (const transfers of counts) {
      const { average, worstSecond: most } = await measure(folder, rate, transfers);
      const ofRate = (bytes: number): string => (rate === 0 ? '' : ` = ${(bytes / (rate * MIB)).toFixed(3)} x`);
      const cell = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB/s${ofRate(bytes)}`;
      console.log(`| ${rate === 0 ? 'none' : `${rate} MiB/s`} | ${transfers} | ${cell(average)} | ${cell(most)} |`);
    }
} finally {
  await rm(folder, { recursive: true, force: true });
}
