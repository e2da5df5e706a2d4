/** What this machine can do at best with the image: each step of a backup alone, on one core. */
import { closeSync, fsyncSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { decodeBlock, digestOf, encodeBlock, isZeroBlock } from '../../engines/mover/block-codec.ts';
import { releaseMemory } from '../../schema/domain/memory.ts';
import type { Image } from '../repository/image.ts';
import { MIB } from '../repository/report.ts';

const SAMPLE_BLOCKS = 256;

/** Seconds per GiB of the disk; `storedShare`: stored bytes per byte of it. */
export type Limits = {
  readSeconds: number;
  sourceSeconds: number;
  targetSeconds: number;
  socketSeconds: number;
  writeSeconds: number;
  storedShare: number;
  /** MiB/s of copying memory, for orientation. */
  copyRate: number;
  /** The least that a full backup of one GiB takes: all that is computed, on all cores, or the disk's writing. */
  leastSeconds: number;
};

const secondsOf = (work: () => void): number => {
  const startMs = performance.now();
  work();
  return (performance.now() - startMs) / 1000;
};

/** `folder`: on the disk that repositories lie on. */
export async function measureLimits({ file, sizeBytes }: Image, folder: string): Promise<Limits> {
  const blocks = spread(sizeBytes);
  const perGib = 1024 / blocks.length;
  const image = openSync(file, 'r');
  const bytes = blocks.map(() => Buffer.allocUnsafe(MIB));
  const read = secondsOf(() => blocks.forEach((at, i) => readSync(image, bytes[i]!, 0, MIB, at)));
  closeSync(image);
  const data = bytes.filter((block) => !isZeroBlock(block));
  const encoded = data.map((block) => {
    const { codec, payload } = encodeBlock('balanced', block);
    return { codec, payload: Buffer.from(payload) };
  });
  const source = secondsOf(() => {
    for (const block of bytes) {
      if (isZeroBlock(block)) continue;
      digestOf(block);
      const { payload } = encodeBlock('balanced', block);
      if (payload !== block) releaseMemory(payload);
    }
  });
  // The payload is summed and the block hashed before it counts.
  const target = secondsOf(() => {
    for (const { codec, payload } of encoded) {
      digestOf(payload);
      const block = decodeBlock(codec, payload, MIB)!;
      digestOf(block);
      if (block !== payload) releaseMemory(block);
    }
  });
  const stored = encoded.map(({ payload }) => payload);
  const storedBytes = stored.reduce((sum, { length }) => sum + length, 0);
  const storedShare = storedBytes / (blocks.length * MIB);
  const write = writeSynced(path.join(folder, 'limit'), stored);
  const socketSeconds = (1024 * storedShare) / (await socketRate(path.join(folder, 'socket')));
  const copy = secondsOf(() => bytes.forEach((block, i) => bytes[(i + 1) % bytes.length]!.set(block)));
  const [readSeconds, sourceSeconds, targetSeconds, writeSeconds] = [read, source, target, write].map(
    (s) => s * perGib,
  ) as [number, number, number, number];
  const computed = (readSeconds + sourceSeconds + targetSeconds + 2 * socketSeconds) / os.availableParallelism();
  const leastSeconds = Math.max(computed, writeSeconds);
  const copyRate = blocks.length / copy;
  return {
    readSeconds,
    sourceSeconds,
    targetSeconds,
    socketSeconds,
    writeSeconds,
    storedShare,
    copyRate,
    leastSeconds,
  };
}

/** Offsets of blocks all over the disk. */
function spread(sizeBytes: number): number[] {
  const all = Math.floor(sizeBytes / MIB);
  const count = Math.min(SAMPLE_BLOCKS, all);
  return Array.from({ length: count }, (_, i) => Math.floor((i * all) / count) * MIB);
}

function writeSynced(file: string, pieces: readonly Buffer[]): number {
  const out = openSync(file, 'w');
  const seconds = secondsOf(() => {
    for (const piece of pieces) writeSync(out, piece);
    fsyncSync(out);
  });
  closeSync(out);
  rmSync(file);
  return seconds;
}

const SENDER = `
const { workerData } = require('node:worker_threads');
const socket = require('node:net').connect(workerData.path);
const piece = Buffer.alloc(1048576);
let left = workerData.pieces;
const send = () => { while (left > 0) { left -= 1; if (!socket.write(piece)) return socket.once('drain', send); } socket.end(); };
send();
`;

/** MiB/s through a Unix socket between two threads. */
async function socketRate(address: string): Promise<number> {
  const pieces = 1024;
  const startMs = performance.now();
  await new Promise<void>((resolve, reject) => {
    const server = createServer((socket) => {
      socket.on('data', () => undefined).once('end', () => server.close(() => resolve()));
    });
    server.once('error', reject).listen(address, () => {
      new Worker(SENDER, { eval: true, workerData: { path: address, pieces } }).once('error', reject);
    });
  });
  return pieces / ((performance.now() - startMs) / 1000);
}
