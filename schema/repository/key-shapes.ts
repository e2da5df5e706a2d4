/** What an encrypted repository.json holds of keys, all of it safe to show (FORMAT.md, "Keys"). */
import { z } from 'zod';
import { canonicalJson } from './checked-json.ts';
import { sumOf } from './digest.ts';
import { KEY_BYTES, MAX_DATA_KEYS, MAX_KEY_SLOTS, TAG_BYTES } from './limits.ts';

/** Name of the feature that a reader of an encrypted repository must understand. */
export const ENCRYPTION = 'encryption';

export const hexOf = (bytes: number) =>
  z.string().regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`), `${bytes} bytes in hex`);
const wrapping = { nonce: hexOf(12), wrapped: hexOf(KEY_BYTES + TAG_BYTES), createdAt: z.string().max(64) };

// Members that are not known are kept: the key check covers them.
const keySlot = z.looseObject({
  id: hexOf(4),
  kind: z.string().regex(/^[a-z-]{1,32}$/),
  kdf: z.looseObject({ name: z.string().max(64) }),
  ...wrapping,
});
const dataKey = z.looseObject({ id: z.int().min(1).max(0xffff_ffff), ...wrapping });
const keyCheck = z.looseObject({ sum: hexOf(16), mac: hexOf(32) });

export const keyMembers = {
  keySlots: z.array(keySlot).max(MAX_KEY_SLOTS),
  dataKeys: z.array(dataKey).max(MAX_DATA_KEYS).default([]),
  keyCheck: keyCheck.nullable(),
};

type Wrapping = { nonce: string; wrapped: string; createdAt: string };
/** `id`: 8 hex digits. `kind`, `kdf.name`: those of this version, or of a later one. */
export type KeySlot = Wrapping & { id: string; kind: string; kdf: { name: string } };
/** `id` from 1, ascending: new records use the last. */
export type DataKey = Wrapping & { id: number };
/** `sum` tells damage without a key; `mac`, over `signedTextOf`, a change by somebody without the keys. */
export type KeyCheck = { sum: string; mac: string };
export type KeyMembers = { keySlots: KeySlot[]; dataKeys: DataKey[]; keyCheck: KeyCheck | null };

/** The canonical JSON of repository.json without `keyCheck`. */
export function signedTextOf(file: KeyMembers): string {
  const { keyCheck: _check, ...signed } = file;
  return canonicalJson(signed);
}

export const keySumOf = (signedText: string, mac: string): string =>
  sumOf(Buffer.from(`${signedText}\n${mac}\n`)).toString('hex');

/** What does not fit together in the key members of a repository.json, or null. */
export function keyMembersFault(file: KeyMembers & { features: { must: readonly string[] } }): string | null {
  const { keySlots, dataKeys, keyCheck } = file;
  const counts = [keySlots.length, dataKeys.length, keyCheck === null ? 0 : 1];
  const isEncrypted = file.features.must.includes(ENCRYPTION);
  if (counts.some((count) => count > 0 !== isEncrypted)) return 'features and keys do not fit together';
  if (new Set(keySlots.map(({ id }) => id)).size < keySlots.length) return 'two key slots of one id';
  if (dataKeys.some(({ id }, at) => at > 0 && id <= dataKeys[at - 1]!.id)) return 'data keys are not ascending';
  return keyCheck && keyCheck.sum !== keySumOf(signedTextOf(file), keyCheck.mac) ? 'it does not match its sum' : null;
}
