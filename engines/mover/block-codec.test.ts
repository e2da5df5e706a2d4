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

const [RAW, REPEATED] = [0, 1];
function blockHeader(type: number, size: number, isLast = false): Buffer {
  const bytes = Buffer.alloc(3);
  bytes.writeUIntLE(Number(isLast) | (type << 1) | (size << 3), 0, 3);
  return bytes;
}
const repeated = (size: number): Buffer => Buffer.concat([blockHeader(REPEATED, size), Buffer.from('x')]);

/**
 * A frame of a block whose content is such that it decodes to as many bytes, and others, for who takes it for the rest of
 * `poison`: that holds `poisonLength` bytes and then ends within a block.
 */
function frameThatGoesOn() {
  const [length, most, at, times] = [1024 * KIB, 128 * KIB, 100 * KIB, 6];
  const content = Buffer.alloc(length, ' ');
  randomBytes(200 * KIB).copy(content);
  const before = zstdCompressSync(content, { params: { [constants.ZSTD_c_compressionLevel]: 1 } });
  const start = before.indexOf(content.subarray(at, at + 64));
  const rest = before.length - start - 4 * (times + 1) - 3;
  const runs = [...Array.from({ length: times }, () => most), length - times * most - start - rest];
  Buffer.concat([...runs.map(repeated), blockHeader(RAW, rest, true)]).copy(content, at);
  const frame = zstdCompressSync(content, { params: { [constants.ZSTD_c_compressionLevel]: 1 } });
  const head = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x58]);
  return { poison: Buffer.concat([head, repeated(most), blockHeader(RAW, start)]), poisonLength: most, frame, content };
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
    const summed = zstdCompressSync(block, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
    expect(decodeBlock('zstd', summed, block.length)?.equals(block)).toBe(true);
    const endless = await frameWithoutEnd(block, 20);
    const bad = [
      endless,
      summed.subarray(0, -1),
      damaged,
      sound.subarray(0, -5),
      longer,
      shorter,
      Buffer.concat([sound, sound]),
      randomBytes(999),
    ];
    for (const payload of [...bad, Buffer.alloc(0)]) {
      expect(decodeBlock('zstd', payload, block.length)).toBeNull();
      expect(decodeBlock('zstd', sound, block.length)?.equals(block)).toBe(true);
    }
  });

  it('are not taken for the rest of a frame without an end', () => {
    const { poison, poisonLength, frame, content } = frameThatGoesOn();
    expect(decodeBlock('zstd', frame, content.length)?.equals(content)).toBe(true);
    expect(decodeBlock('zstd', poison, poisonLength)).toBeNull();
    expect(decodeBlock('zstd', frame, content.length)?.equals(content)).toBe(true);
  });

  it('are refused when they want a window of much more memory than a block has', async () => {
    const block = randomBytes(300 * KIB);
    const ended = async (windowLog: number): Promise<Buffer> =>
      Buffer.concat([await frameWithoutEnd(block, windowLog), blockHeader(RAW, 0, true)]);
    expect(decodeBlock('zstd', await ended(23), block.length)?.equals(block)).toBe(true);
    expect(decodeBlock('zstd', await ended(24), block.length)).toBeNull();
  });

  it('do not lie in memory that somebody has still', () => {
    const blocks = [3, 5, 7, 11].map((seed) => text(512 * KIB, seed));
    const encoded = blocks.map((block) => encodeBlock('balanced', block));
    const decoded = encoded.map(({ codec, payload }) => decodeBlock(codec, payload, 512 * KIB)!);
    for (const [i, block] of blocks.entries()) expect(decoded[i]!.equals(block)).toBe(true);
    expect(new Set([...decoded, ...encoded.map(({ payload }) => payload)].map(({ buffer }) => buffer)).size).toBe(8);
  });
});
