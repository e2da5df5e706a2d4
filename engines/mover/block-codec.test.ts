import { randomBytes } from 'node:crypto';
import { constants, createZstdCompress, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { releaseMemory } from '../../schema/domain/memory.ts';
import { decodeBlock, encodeBlock } from './block-codec.ts';

const KIB = 1024;
const text = (length: number, seed: number): Buffer =>
  Buffer.from(
    Array.from({ length: Math.ceil(length / 10) }, (_, i) => `${(i * seed) % 9973} lines`.padEnd(10)).join(''),
  ).subarray(0, length);
const copyOf = (payload: Buffer): Buffer => {
  const copy = Buffer.from(payload);
  releaseMemory(payload);
  return copy;
};

/** As somebody else might write it: with neither its length in front nor its end behind. */
async function frameWithoutEnd(content: Buffer, windowLog: number): Promise<Buffer> {
  const stream = createZstdCompress({ params: { [constants.ZSTD_c_windowLog]: windowLog } });
  stream.write(content);
  const parts: Buffer[] = [];
  stream.on('data', (part: Buffer) => parts.push(part));
  await new Promise<void>((resolve) => stream.flush(constants.ZSTD_e_flush, resolve));
  return Buffer.concat(parts);
}

describe('blocks, one after another, with the same memory', () => {
  it('are what they were, at every level and of every length', () => {
    const lengths = [1, 4 * KIB, 64 * KIB - 1, 256 * KIB, 1024 * KIB, 4096 * KIB, 1024 * KIB, 5 * KIB];
    for (const level of ['fast', 'balanced', 'small', 'balanced'] as const)
      for (const [i, length] of lengths.entries()) {
        const block = text(length, i + 3);
        const { codec, payload } = encodeBlock(level, block);
        const stored = codec === 'none' ? payload : copyOf(payload);
        const decoded = decodeBlock(codec, stored, length)!;
        expect(decoded.equals(block)).toBe(true);
        if (codec === 'zstd') expect(zstdDecompressSync(stored).equals(block)).toBe(true);
        if (decoded !== stored) releaseMemory(decoded);
      }
  });

  it('are as sound after one that is damaged, cut short, too long, too short or without an end', async () => {
    const block = text(300 * KIB, 7);
    const sound = zstdCompressSync(block);
    const damaged = Buffer.from(sound);
    damaged.fill(0xff, 40, 200);
    const longer = zstdCompressSync(text(300 * KIB + 1, 7));
    const shorter = zstdCompressSync(text(300 * KIB - 1, 7));
    const bad = [damaged, sound.subarray(0, -5), longer, shorter, Buffer.concat([sound, sound]), randomBytes(999)];
    for (const payload of [...bad, Buffer.alloc(0)]) {
      expect(decodeBlock('zstd', payload, block.length)).toBeNull();
      expect(decodeBlock('zstd', sound, block.length)?.equals(block)).toBe(true);
    }
    const endless = await frameWithoutEnd(block, 20);
    expect(decodeBlock('zstd', endless, block.length)?.equals(block)).toBe(true);
    expect(decodeBlock('zstd', sound, block.length)?.equals(block)).toBe(true);
  });

  it('are refused when they want a window of much more memory than a block has', async () => {
    const block = randomBytes(300 * KIB);
    expect(decodeBlock('zstd', await frameWithoutEnd(block, 23), block.length)?.equals(block)).toBe(true);
    expect(decodeBlock('zstd', await frameWithoutEnd(block, 27), block.length)).toBeNull();
  });

  it('do not lie in memory that somebody has still', () => {
    const blocks = [3, 5, 7, 11].map((seed) => text(512 * KIB, seed));
    const encoded = blocks.map((block) => encodeBlock('balanced', block));
    const decoded = encoded.map(({ codec, payload }) => decodeBlock(codec, payload, 512 * KIB)!);
    for (const [i, block] of blocks.entries()) expect(decoded[i]!.equals(block)).toBe(true);
    expect(new Set([...decoded, ...encoded.map(({ payload }) => payload)].map(({ buffer }) => buffer)).size).toBe(8);
  });
});
