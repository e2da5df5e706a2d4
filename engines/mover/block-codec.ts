/** Blocks on the wire: digest, zero test, compression that has to pay, and decoding that trusts no length. Synchronous: for lane threads. */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { blake3 } from '@napi-rs/blake-hash';
import { compressSync, uncompressSync } from 'lz4-napi';
import { releaseMemory } from '../../schema/domain/memory.ts';
import type { Codec } from '../../schema/domain/states.ts';

export const DIGEST_BYTES = 32;
/** 32 bytes, BLAKE3-256. */
export const digestOf = (block: Buffer): Buffer => blake3(block);

const zeros = Buffer.alloc(4 * 1024 * 1024);
/** For blocks of at most 4 MiB; a memory comparison that ends at the first difference. */
export const isZeroBlock = (block: Buffer): boolean => block.equals(zeros.subarray(0, block.length));

const ZSTD_LEVEL = 1;
const PROBE_SLICES = 4;
const PROBE_SLICE_BYTES = 4096;
/** A payload is kept compressed only when it saves at least a sixteenth: decoding costs too. */
const pays = (compressed: number, raw: number): boolean => compressed <= raw - raw / 16;

const compress = (codec: Codec, block: Buffer): Buffer =>
  codec === 'lz4'
    ? compressSync(block)
    : zstdCompressSync(block, { params: { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL } });

/** Four slices spread over the block tell whether compressing the whole is worth its time. */
function probePays(codec: Codec, block: Buffer): boolean {
  if (block.length <= 4 * PROBE_SLICES * PROBE_SLICE_BYTES) return true;
  const step = Math.floor((block.length - PROBE_SLICE_BYTES) / (PROBE_SLICES - 1));
  const slices = Array.from({ length: PROBE_SLICES }, (_, i) => block.subarray(i * step, i * step + PROBE_SLICE_BYTES));
  const sample = Buffer.concat(slices);
  return pays(compress(codec, sample).length, sample.length);
}

/** The block itself with codec none when compression does not pay; else memory of the caller's. */
export function encodeBlock(codec: Codec, block: Buffer): { codec: Codec; payload: Buffer } {
  if (codec === 'none' || !probePays(codec, block)) return { codec: 'none', payload: block };
  const payload = compress(codec, block);
  if (pays(payload.length, block.length)) return { codec, payload };
  releaseMemory(payload);
  return { codec: 'none', payload: block };
}

/**
 * Null when the payload does not decode to exactly `rawLength` bytes. With codec none: the payload's own memory, else the
 * caller's.
 */
export function decodeBlock(codec: Codec, payload: Buffer, rawLength: number): Buffer | null {
  try {
    const block = decode(codec, payload, rawLength);
    return block?.length === rawLength ? block : null;
  } catch {
    return null;
  }
}

/** Zlib's own. */
const LEAST_CHUNK = 64;

/**
 * The chunk is what zstd decodes into: the whole block in one pass, with no copies put together afterwards. One byte more
 * than that, since a chunk that is full means another pass.
 */
function decode(codec: Codec, payload: Buffer, rawLength: number): Buffer | null {
  if (codec === 'none') return payload;
  if (codec === 'zstd')
    return zstdDecompressSync(payload, { maxOutputLength: rawLength, chunkSize: Math.max(LEAST_CHUNK, rawLength + 1) });
  // The library allocates what the first four bytes say.
  if (payload.length < 4 || payload.readUInt32LE(0) !== rawLength) return null;
  return uncompressSync(payload);
}
