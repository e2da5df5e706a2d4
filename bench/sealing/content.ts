/** Blocks that a session sends: of numbers only, or of real bytes. */
import { randomBytes } from 'node:crypto';
import { encodeBlock } from '../../engines/mover/block-codec.ts';
import type { Codec } from '../../schema/domain/states.ts';
import { digestOf } from '../../schema/repository/digest.ts';
import { idOf, mix } from '../index/generator.ts';

const KIB = 1024;
const UNIT_BYTES = 64 * KIB;
const TEXT = Buffer.alloc(UNIT_BYTES / 2, 'what is written to a disk is in part of this kind, ');

export type Content = { digest: Uint8Array; codec: Codec; payload: Uint8Array };

/** A digest, and one byte that stands for the block: nobody reads it. */
export const standIn = (number: number): Content => ({ digest: idOf(number), codec: 'zstd', payload: Buffer.alloc(1) });

/** Half of it cannot be compressed. */
export function realBlock(blockSize: number): Content {
  const units = Array.from({ length: blockSize / UNIT_BYTES }, () => [randomBytes(UNIT_BYTES / 2), TEXT]);
  const block = Buffer.concat(units.flat());
  return { digest: digestOf(block), ...encodeBlock('balanced', block) };
}

/** Blocks that `count` writes of 64 KiB hit, scattered over the disk. */
export function scatteredWrites(sizeBytes: number, blockSize: number, count: number, seed: number): Set<number> {
  const places = sizeBytes / UNIT_BYTES;
  const hit = new Set<number>();
  for (let write = 0; write < count; write += 1) {
    const place = Math.floor((mix(seed + write) / 2 ** 32) * places);
    hit.add(Math.floor((place * UNIT_BYTES) / blockSize));
  }
  return hit;
}
