/** Passphrases and key files, and the keys of slots made of them (FORMAT.md, "Key slots"). */
import { createSecretKey, hkdfSync, scrypt, type KeyObject } from 'node:crypto';
import { z } from 'zod';
import { TidemarkError } from '../domain/errors.ts';
import type { Random } from '../domain/seams.ts';
import { digestOf } from './digest.ts';
import { hexOf, type KeySlot } from './key-shapes.ts';
import { KEY_BYTES, MAX_KEY_FILE_BYTES, MAX_PASSPHRASE_BYTES } from './limits.ts';

/** `content`: the whole key file. */
export type Secret = { kind: 'passphrase'; passphrase: string } | { kind: 'keyfile'; content: Uint8Array };
/** Memory: 128 x n x r bytes. */
export type ScryptCost = { n: number; r: number; p: number };

/** 128 MiB and a third of a second. */
export const DEFAULT_SCRYPT: ScryptCost = { n: 2 ** 17, r: 8, p: 1 };
/** At most 1 GiB and some seconds, whatever a file asks for. */
const MAX_SCRYPT_MEMORY = 2 ** 30;
const MAX_SCRYPT_WORK = 2 ** 24;
const MIN_PASSPHRASE_CHARACTERS = 8;
/** Fewer different bytes than that are no random key. */
const MIN_DIFFERENT_BYTES = 8;

const salt = hexOf(16);
const scryptKdf = z
  .object({ n: z.int().min(1024), r: z.int().min(1), p: z.int().min(1), salt })
  .refine(({ n }) => Number.isInteger(Math.log2(n)), 'n is no power of two')
  .refine(({ n, r }) => 128 * n * r <= MAX_SCRYPT_MEMORY, 'it asks for over 1 GiB')
  .refine(({ n, r, p }) => n * r * p <= MAX_SCRYPT_WORK, 'it asks for too much work');
const hkdfKdf = z.object({ salt });

export function newKdf(kind: Secret['kind'], random: Random, cost: ScryptCost): KeySlot['kdf'] {
  const of = { salt: Buffer.from(random.bytes(16)).toString('hex') };
  return kind === 'passphrase' ? { name: 'scrypt', ...cost, ...of } : { name: 'hkdf-sha256', ...of };
}

/** BAD_REQUEST for a secret too weak to begin with; WRONG_KEY for a key file that cannot be one. */
export function checkNewSecret(secret: Secret): void {
  if (secret.kind === 'keyfile') {
    if (new Set(keyFileBytes(secret.content)).size < MIN_DIFFERENT_BYTES)
      throw new TidemarkError('BAD_REQUEST', 'the key file is not random: it repeats a few bytes');
  } else if (Array.from(secret.passphrase).length < MIN_PASSPHRASE_CHARACTERS)
    throw new TidemarkError('BAD_REQUEST', `a passphrase has at least ${MIN_PASSPHRASE_CHARACTERS} characters`);
}

/**
 * The key that a slot's content is wrapped with. REPOSITORY_NEWER for a derivation that is not known, REPOSITORY_CORRUPT for
 * parameters beyond the limits (nothing is computed then), WRONG_KEY for a secret that cannot be one.
 */
export async function slotKeyOf({ id, kdf }: Pick<KeySlot, 'id' | 'kdf'>, secret: Secret): Promise<KeyObject> {
  if (secret.kind === 'passphrase' && kdf.name === 'scrypt') {
    const { n, r, p, salt } = checked(scryptKdf, id, kdf);
    return createSecretKey(await runScrypt(passphraseBytes(secret.passphrase), Buffer.from(salt, 'hex'), { n, r, p }));
  }
  if (secret.kind === 'keyfile' && kdf.name === 'hkdf-sha256') {
    const { salt } = checked(hkdfKdf, id, kdf);
    return hkdfKey(createSecretKey(keyFileBytes(secret.content)), Buffer.from(salt, 'hex'), 'tidemark key slot');
  }
  throw new TidemarkError('REPOSITORY_NEWER', `key slot ${id} uses ${kdf.name}, which is not known for it`, {
    slot: id,
    kdf: kdf.name,
  });
}

function checked<S extends z.ZodType>(schema: S, slot: string, kdf: unknown): z.infer<S> {
  const parsed = schema.safeParse(kdf);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const field = ['kdf', ...issue.path].join('.');
  throw new TidemarkError('REPOSITORY_CORRUPT', `key slot ${slot}: ${field}: ${issue.message}`, { slot, field });
}

/** HKDF-SHA256 to 32 bytes. */
export const hkdfKey = (material: KeyObject, salt: Uint8Array, info: string): KeyObject =>
  createSecretKey(Buffer.from(hkdfSync('sha256', material, salt, info, KEY_BYTES)));

const runScrypt = (passphrase: Buffer, salt: Buffer, { n, r, p }: ScryptCost): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    const maxmem = 128 * r * (n + p + 2);
    scrypt(passphrase, salt, KEY_BYTES, { N: n, r, p, maxmem }, (error, key) => (error ? reject(error) : resolve(key)));
  });

/** The same characters give the same bytes, whichever way a keyboard composes them. */
function passphraseBytes(passphrase: string): Buffer {
  const bytes = Buffer.from(passphrase.normalize('NFC'));
  if (bytes.length >= 1 && bytes.length <= MAX_PASSPHRASE_BYTES) return bytes;
  throw new TidemarkError('WRONG_KEY', `a passphrase has 1 to ${MAX_PASSPHRASE_BYTES} bytes`);
}

const TEXT_FORM = 'tidemark-key:';
const textForm = /^tidemark-key:([0-9a-f]{64}):([0-9a-f]{8})\s*$/;

/** A new key file: a line of text that can be printed and typed in again. */
export function newKeyFile(random: Random): string {
  const key = Buffer.from(random.bytes(KEY_BYTES));
  return `${TEXT_FORM}${key.toString('hex')}:${typingCheck(key)}\n`;
}

const typingCheck = (key: Uint8Array): string => digestOf(key).toString('hex', 0, 4);

/** The secret in a key file: that of its text form, else all its bytes. */
function keyFileBytes(content: Uint8Array): Buffer {
  const bytes = Buffer.from(content);
  const refused = (why: string): TidemarkError => new TidemarkError('WRONG_KEY', `the key file ${why}`);
  if (bytes.length > MAX_KEY_FILE_BYTES) throw refused(`has more than ${MAX_KEY_FILE_BYTES} bytes`);
  if (!bytes.toString('latin1', 0, TEXT_FORM.length).toLowerCase().startsWith(TEXT_FORM)) {
    if (bytes.length < KEY_BYTES) throw refused(`has fewer than ${KEY_BYTES} bytes`);
    return bytes;
  }
  const [, hex = '', check] = textForm.exec(bytes.toString('latin1').toLowerCase()) ?? [];
  const key = Buffer.from(hex, 'hex');
  if (key.length !== KEY_BYTES || typingCheck(key) !== check) throw refused('is mistyped: its check digits do not fit');
  return key;
}
