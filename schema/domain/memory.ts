/** Large pieces of memory that come and go, block after block. */

/** At most so much may be memory that several small buffers share (`Buffer.allocUnsafe`). Bytes. */
const SHARED_BYTES = 64 * 1024;

/**
 * Gives back the memory of `bytes` now: they, and everything else that lies there, are empty afterwards. For whoever had
 * them last. Small memory is left to the collector.
 *
 * Blocks are outside the heap, and the collector comes whenever some dozen of them wait for it: at the rate of a restore
 * it took more processor time than all else.
 */
export function releaseMemory(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength > SHARED_BYTES) buffer.transfer(0);
}

/**
 * The same for many small pieces that nobody else has a part of. Nothing is done with less than half of its memory: it may
 * be of a pool, which never gives a half of itself.
 */
export function releaseOwnMemory(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && bytes.byteLength * 2 > buffer.byteLength) buffer.transfer(0);
}
