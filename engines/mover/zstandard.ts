/**
 * Zstandard from block to block, with one context each way for the thread and with memory that is taken and given back. The
 * synchronous functions of node:zlib make both anew for every block, which is a sixth of the time of compressing it
 * and a quarter of decompressing it.
 *
 * node:zlib has no public way to do that. This is its own way inside, of its synchronous functions as of its streams:
 * `_handle.writeSync(flush, in, from, length, out, from, length)`, after which `_writeState` has what is left of out and in.
 */
import { constants, createZstdCompress, createZstdDecompress, type ZstdCompress, type ZstdDecompress } from 'node:zlib';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { releaseMemory, takeMemory } from '../../schema/domain/memory.ts';

type Inside = {
  _handle: {
    writeSync(flush: number, from: Buffer, at: number, length: number, into: Buffer, to: number, room: number): void;
  };
  _writeState: Uint32Array;
};
type Context = (ZstdCompress | ZstdDecompress) & Inside;

/** An error of a context ends it; it is told as an event too, which nobody else waits for. */
function newContext(stream: ZstdCompress | ZstdDecompress): Context {
  const context = stream as Context;
  if (typeof context._handle?.writeSync !== 'function' || !(context._writeState instanceof Uint32Array))
    throw new TidemarkError('BUG', `node:zlib of Node ${process.version} is not as known inside`);
  return context.on('error', () => undefined);
}

/** Bytes written, or null when it failed or not all of `from` was used. */
function run(context: Context, flush: number, from: Buffer, into: Buffer): number | null {
  context._handle.writeSync(flush, from, 0, from.length, into, 0, into.length);
  const [roomLeft, inputLeft] = context._writeState as unknown as [number, number];
  return context.destroyed || inputLeft > 0 ? null : into.length - roomLeft;
}

/**
 * ZSTD_compressBound and more. With room for whatever may come it compresses in one pass, from the block into the payload;
 * with less it copies the block piece by piece into a window of its own, which takes a fifth longer.
 */
const boundOf = (length: number): number => length + (length >> 8) + 1024;

let compressor: { level: number; context: Context } | null = null;

function compressorOf(level: number): Context {
  if (compressor?.level === level) return compressor.context;
  compressor?.context.destroy();
  const context = newContext(createZstdCompress({ params: { [constants.ZSTD_c_compressionLevel]: level } }));
  compressor = { level, context };
  return context;
}

/** One frame, in memory to be given back (`releaseMemory`). */
export function zstdCompress(level: number, bytes: Buffer): Buffer {
  const into = takeMemory(boundOf(bytes.length));
  const length = run(compressorOf(level), constants.ZSTD_e_end, bytes, into);
  if (length === null) throw new TidemarkError('BUG', `zstd level ${level} did not compress ${bytes.length} bytes`);
  return into.subarray(0, length);
}

/** A block has at most 4 MiB; what asks for a larger window would make zstd allocate it. 2 to the power of this many bytes. */
const MOST_WINDOW_LOG = 23;
let decompressor: Context | null = null;

/** Exactly `rawLength` bytes, in memory to be given back; null when the frame holds something else or is damaged. */
export function zstdDecompress(frame: Buffer, rawLength: number): Buffer | null {
  // A byte more shows what is too long.
  const into = takeMemory(rawLength + 1);
  if (!fills(frame, into)) {
    releaseMemory(into);
    return null;
  }
  return into.subarray(0, rawLength);
}

/** Whether the frame gives one byte less than there is room for. A failing context is not used again. */
function fills(frame: Buffer, into: Buffer): boolean {
  const isUsed = decompressor !== null;
  decompressor ??= newContext(createZstdDecompress({ params: { [constants.ZSTD_d_windowLogMax]: MOST_WINDOW_LOG } }));
  if (run(decompressor, constants.ZSTD_e_continue, frame, into) === into.length - 1) return true;
  decompressor.destroy();
  decompressor = null;
  // The frame before may have been without an end, and this one taken for it.
  return isUsed && fills(frame, into);
}
