/** Blocks on the wire: digest, zero test, compression that has to pay, and decoding that trusts no length. Synchronous: for lane threads. */
import { blake3 } from '@napi-rs/blake-hash';
import { uncompressSync } from 'lz4-napi';
import { releaseMemory } from '../../schema/domain/memory.ts';
import type { Codec, CompressionLevel } from '../../schema/domain/states.ts';
import { zstdCompress, zstdDecompress } from './zstandard.ts';

export const DIGEST_BYTES = 32;
/** 32 bytes, BLAKE3-256. */
export const digestOf = (block: Buffer): Buffer => blake3(block);

const zeros = Buffer.alloc(4 * 1024 * 1024);
/** For blocks of at most 4 MiB; a memory comparison that ends at the first difference. */
export const isZeroBlock = (block: Buffer): boolean => block.equals(zeros.subarray(0, block.length));

/**
 * Zstandard's levels, chosen by `bench/codec.ts`: LZ4 took more time than -5 for about the same; 3 takes twice the time of
 * 1 for a tenth less, 6 five times for a fifth less.
 */
const zstdLevels: Record<Exclude<CompressionLevel, 'none'>, number> = { fast: -5, balanced: 1, small: 6 };
const PROBE_SLICES = 4;
const PROBE_SLICE_BYTES = 4096;
/** A payload is kept compressed only when it saves at least a sixteenth: decoding costs too. */
const pays = (compressed: number, raw: number): boolean => compressed <= raw - raw / 16;

const compress = (level: Exclude<CompressionLevel, 'none'>, bytes: Buffer): Buffer =>
  zstdCompress(zstdLevels[level], bytes);

/** Four slices spread over the block tell whether compressing the whole is worth its time. */
function probePays(level: Exclude<CompressionLevel, 'none'>, block: Buffer): boolean {
  if (block.length <= 4 * PROBE_SLICES * PROBE_SLICE_BYTES) return true;
  const step = Math.floor((block.length - PROBE_SLICE_BYTES) / (PROBE_SLICES - 1));
  const slices = Array.from({ length: PROBE_SLICES }, (_, i) => block.subarray(i * step, i * step + PROBE_SLICE_BYTES));
  const sample = Buffer.concat(slices);
  const payload = compress(level, sample);
  const isWorthIt = pays(payload.length, sample.length);
  releaseMemory(payload);
  return isWorthIt;
}

/** The block itself with codec none when compression does not pay; else memory to be given back (`releaseMemory`). */
export function encodeBlock(level: CompressionLevel, block: Buffer): { codec: Codec; payload: Buffer } {
  if (level === 'none' || !probePays(level, block)) return { codec: 'none', payload: block };
  const payload = compress(level, block);
  if (pays(payload.length, block.length)) return { codec: 'zstd', payload };
  releaseMemory(payload);
  return { codec: 'none', payload: block };
}

/**
 * Null when the payload does not decode to exactly `rawLength` bytes. With codec none: the payload's own memory, else
 * memory to be given back (`releaseMemory`).
 */
export function decodeBlock(codec: Codec, payload: Buffer, rawLength: number): Buffer | null {
  const block = decode(codec, payload, rawLength);
  return block?.length === rawLength ? block : null;
}

function decode(codec: Codec, payload: Buffer, rawLength: number): Buffer | null {
  if (codec === 'none') return payload;
  if (codec === 'zstd') return zstdDecompress(payload, rawLength);
  // The library allocates what the first four bytes say.
  if (payload.length < 4 || payload.readUInt32LE(0) !== rawLength) return null;
  try {
    return uncompressSync(payload);
  } catch {
    return null;
  }
}
