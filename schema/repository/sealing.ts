/** AES-256-GCM with a key of its own for each message (FORMAT.md, "Sealing"). */
import { createCipheriv, createDecipheriv, createHmac, type KeyObject } from 'node:crypto';
import { SALT_BYTES, TAG_BYTES } from './limits.ts';

const CIPHER = 'aes-256-gcm';
/** Each key encrypts one message only, so its one nonce may be zero. */
const ZERO_NONCE = Buffer.alloc(12);

export type Sealing = { root: KeyObject; label: string };
/** `tag`: 16 bytes. */
export type Sealed = { ciphertext: Buffer; tag: Buffer };

const messageKey = ({ root, label }: Sealing, salt: Uint8Array): Buffer =>
  createHmac('sha256', root).update(label).update(salt).digest();

/** `key`: 32 bytes or a key; `nonce`: 12 bytes, never used twice with one key. */
export function encrypt(key: Buffer | KeyObject, nonce: Uint8Array, associated: Uint8Array, plain: Uint8Array): Sealed {
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES }).setAAD(associated);
  const ciphertext = cipher.update(plain);
  cipher.final();
  return { ciphertext, tag: cipher.getAuthTag() };
}

/** `sealed`: ciphertext and tag. Null when the tag does not fit: nothing of the content is given then. */
export function decrypt(
  key: Buffer | KeyObject,
  nonce: Uint8Array,
  associated: Uint8Array,
  sealed: Uint8Array,
): Buffer | null {
  if (sealed.byteLength < TAG_BYTES) return null;
  const tagAt = sealed.byteLength - TAG_BYTES;
  const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES }).setAAD(associated);
  const plain = decipher.setAuthTag(sealed.subarray(tagAt)).update(sealed.subarray(0, tagAt));
  try {
    decipher.final();
    return plain;
  } catch {
    return null;
  }
}

/** `salt`: of `ownSalt`. */
export const seal = (sealing: Sealing, salt: Uint8Array, associated: Uint8Array, plain: Uint8Array): Sealed =>
  encrypt(messageKey(sealing, salt), ZERO_NONCE, associated, plain);

/** As `decrypt`. */
export const open = (sealing: Sealing, salt: Uint8Array, associated: Uint8Array, sealed: Uint8Array): Buffer | null =>
  decrypt(messageKey(sealing, salt), ZERO_NONCE, associated, sealed);

/**
 * A salt of what `context` and `distinction` are: two messages share it only when both are the same. With the message as
 * distinction it needs no randomness, and sealing the same again gives the same bytes.
 */
export const ownSalt = ({ root }: Sealing, context: Uint8Array, distinction: Uint8Array): Buffer =>
  createHmac('sha256', root)
    .update('tidemark salt')
    .update(lengthOf(context))
    .update(context)
    .update(distinction)
    .digest()
    .subarray(0, SALT_BYTES);

function lengthOf(bytes: Uint8Array): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.byteLength));
  return length;
}
