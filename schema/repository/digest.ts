/** BLAKE3 and crc as the format uses them. */
import { crc32 } from 'node:zlib';
import { blake3, Blake3Hasher } from '@napi-rs/blake-hash';

/** The same memory as a Buffer: the hash takes no plain Uint8Array. */
export const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** 32 bytes. */
export const digestOf = (bytes: Uint8Array): Buffer => blake3(asBuffer(bytes));
/** The first 16 bytes of the digest. */
export const sumOf = (bytes: Uint8Array): Buffer => digestOf(bytes).subarray(0, 16);
/** One for all: a new hasher costs more than it takes to hash a ledger frame. */
const partsHasher = new Blake3Hasher();
/** The sum of `parts`, one behind the other. */
export function sumOfParts(parts: readonly Uint8Array[]): Buffer {
  partsHasher.reset();
  for (const part of parts) partsHasher.update(asBuffer(part));
  return partsHasher.digestBuffer().subarray(0, 16);
}
export const hexDigestOf = (text: string | Uint8Array): string =>
  digestOf(typeof text === 'string' ? Buffer.from(text) : text).toString('hex');
export const crcOf = (bytes: Uint8Array, before = 0): number => crc32(bytes, before);

export type StreamDigest = { update(bytes: Uint8Array): void; hex(): string };

/** Digest of something longer than one buffer. */
export function createStreamDigest(): StreamDigest {
  const hasher = new Blake3Hasher();
  return {
    update: (bytes) => void hasher.update(asBuffer(bytes)),
    hex: () => hasher.digestBuffer().toString('hex'),
  };
}

/** BLAKE3 keyed with 32 bytes, for many short messages. */
export function createKeyedDigest(key: Uint8Array): (bytes: Uint8Array) => Buffer {
  const hasher = Blake3Hasher.newKeyed(asBuffer(key));
  return (bytes) => {
    // Keeps its key, and spares a new hasher for each of a million blocks.
    hasher.reset();
    return hasher.update(asBuffer(bytes)).digestBuffer();
  };
}

export const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);
const idPattern = /^[0-9a-f]{32}$/;
/** 128 bits as 32 lower-case hex digits. */
export const isId128 = (text: string): boolean => idPattern.test(text);
