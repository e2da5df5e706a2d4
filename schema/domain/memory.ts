/** Large pieces of memory that come and go, block after block. */
import { TidemarkError } from './errors.ts';

/** At most so much may be memory that several small buffers share (`Buffer.allocUnsafe`). Bytes. */
const SHARED_BYTES = 64 * 1024;
/** Pieces have a multiple of this, so that one fits for payloads of several lengths. Bytes. */
const STEP_BYTES = 64 * 1024;
/** So many times what is asked for a piece may have, or small payloads would hold the memory of large ones. */
const MOST_TIMES = 2;
/** What a thread keeps at most for whoever takes memory next. Bytes. */
const MOST_FREE_BYTES = 12 * 1024 * 1024;

/** Of this thread: memory that was given back, and what is taken. A piece that nobody gives back is the collector's. */
const free: ArrayBuffer[] = [];
const taken = new WeakSet<ArrayBuffer>();
const newPiece = (bytes: number): ArrayBuffer =>
  Buffer.allocUnsafeSlow(Math.ceil(bytes / STEP_BYTES) * STEP_BYTES).buffer;
const freeBytes = (): number => free.reduce((sum, { byteLength }) => sum + byteLength, 0);

/**
 * Memory that one block after another lies in, with whatever is in it, until `releaseMemory`. Fresh memory is given by the
 * system page by page, which takes longer than to hash what lies in it.
 */
export function takeMemory(bytes: number): Buffer<ArrayBuffer> {
  if (bytes <= SHARED_BYTES) return Buffer.allocUnsafeSlow(bytes);
  const fits = free.findLastIndex(({ byteLength }) => byteLength >= bytes && byteLength <= MOST_TIMES * bytes);
  const buffer = fits < 0 ? newPiece(bytes) : free.splice(fits, 1)[0]!;
  taken.add(buffer);
  return Buffer.from(buffer, 0, bytes);
}

/**
 * Gives back the memory of `bytes` and of everything else that lies there: to this thread if it was taken, else to the
 * system. For whoever had them last, once; nobody may look at them afterwards. Small memory is left to the collector.
 *
 * Blocks are outside the heap, and the collector comes whenever some dozen of them wait for it: at the rate of a restore
 * it took more processor time than all else.
 */
export function releaseMemory(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (!(buffer instanceof ArrayBuffer) || buffer.byteLength <= SHARED_BYTES) return;
  if (free.includes(buffer)) throw new TidemarkError('BUG', 'memory was given back twice');
  if (!taken.delete(buffer)) return void buffer.transfer(0);
  free.push(buffer);
  while (freeBytes() > MOST_FREE_BYTES) free.shift()!.transfer(0);
}

/** Gives the system what this thread keeps: for when it has nothing to do. */
export function releaseFreeMemory(): void {
  for (const buffer of free.splice(0)) buffer.transfer(0);
}

/**
 * The same for many small pieces that nobody else has a part of. Nothing is done with less than half of its memory: it may
 * be of a pool, which never gives a half of itself.
 */
export function releaseOwnMemory(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && bytes.byteLength * 2 > buffer.byteLength) buffer.transfer(0);
}
