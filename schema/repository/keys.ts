/**
 * The keys of an encrypted repository (FORMAT.md, "Keys"): one master secret, wrapped by each key slot, wraps the data keys
 * and gives all others. Each function takes a repository.json and gives a new one; none writes.
 */
import { createHmac, createSecretKey, timingSafeEqual, type KeyObject } from 'node:crypto';
import { TidemarkError } from '../domain/errors.ts';
import type { Random } from '../domain/seams.ts';
import type { RepositoryFile } from './documents.ts';
import { ENCRYPTION, keySumOf, signedTextOf, type DataKey, type KeySlot } from './key-shapes.ts';
import { KEY_BYTES, MAX_DATA_KEYS, MAX_KEY_SLOTS } from './limits.ts';
import { decrypt, encrypt } from './sealing.ts';
import { checkNewSecret, DEFAULT_SCRYPT, hkdfKey, newKdf, slotKeyOf, type ScryptCost, type Secret } from './secrets.ts';

type DataKeyInUse = { id: number; key: KeyObject };
/** Both ascending. New records have the last of `dataKeys`; those of `upcoming` are read only, until all who read have them. */
export type DataKeys = { dataKeys: DataKeyInUse[]; upcoming: DataKeyInUse[] };

/**
 * What reading and writing needs. Can be posted to a thread as it is; neither JSON nor an inspection of it shows a key.
 * `uuid` of the repository.
 */
export type VaultKeys = DataKeys & {
  uuid: string;
  idKey: KeyObject;
  nameKey: KeyObject;
  documentKey: KeyObject;
  ledgerKey: KeyObject;
  checkKey: KeyObject;
};

/** `master` never leaves the thread that unlocked: it is for changes of the keys. */
export type RepositoryKeys = { master: KeyObject; vault: VaultKeys };
export type Unlocked = { file: RepositoryFile; keys: RepositoryKeys };
/** `now`: ISO 8601, UTC. `cost`: of a passphrase slot. */
export type KeyOptions = { random: Random; now: string; cost?: ScryptCost };

const derive = (master: KeyObject, uuid: string, label: string): KeyObject =>
  hkdfKey(master, Buffer.from(uuid, 'hex'), `tidemark ${label}`);

function keysOf(master: KeyObject, uuid: string, dataKeys: VaultKeys['dataKeys']): RepositoryKeys {
  const of = (label: string): KeyObject => derive(master, uuid, label);
  const vault = {
    uuid,
    idKey: of('id'),
    nameKey: of('name'),
    documentKey: of('document'),
    ledgerKey: of('ledger'),
    checkKey: of('key check'),
    dataKeys,
    upcoming: [],
  };
  return { master, vault };
}

// ---- wrapping ------------------------------------------------------------------------------------

const slotContext = (uuid: string, { id, kind, createdAt }: Pick<KeySlot, 'id' | 'kind' | 'createdAt'>): Buffer =>
  Buffer.from(`tidemark key slot\n${uuid}\n${id}\n${kind}\n${createdAt}\n`);

const dataKeyContext = (uuid: string, { id, createdAt }: Pick<DataKey, 'id' | 'createdAt'>): Buffer =>
  Buffer.from(`tidemark data key\n${uuid}\n${id}\n${createdAt}\n`);

function wrap(by: KeyObject, key: KeyObject, context: Buffer, random: Random): { nonce: string; wrapped: string } {
  const nonce = Buffer.from(random.bytes(12));
  const { ciphertext, tag } = encrypt(by, nonce, context, key.export());
  return { nonce: nonce.toString('hex'), wrapped: Buffer.concat([ciphertext, tag]).toString('hex') };
}

function unwrap(by: KeyObject, { nonce, wrapped }: KeySlot | DataKey, context: Buffer): KeyObject | null {
  const key = decrypt(by, Buffer.from(nonce, 'hex'), context, Buffer.from(wrapped, 'hex'));
  return key && createSecretKey(key);
}

const newKey = (random: Random): KeyObject => createSecretKey(Buffer.from(random.bytes(KEY_BYTES)));

async function newSlot(file: RepositoryFile, master: KeyObject, secret: Secret, options: KeyOptions): Promise<KeySlot> {
  checkNewSecret(secret);
  const { random, now, cost = DEFAULT_SCRYPT } = options;
  const taken = new Set(file.keySlots.map((slot) => slot.id));
  let id: string;
  do id = Buffer.from(random.bytes(4)).toString('hex');
  while (taken.has(id));
  const slot = { id, kind: secret.kind, kdf: newKdf(secret.kind, random, cost), createdAt: now };
  return { ...slot, ...wrap(await slotKeyOf(slot, secret), master, slotContext(file.uuid, slot), random) };
}

function newDataKey({ uuid, dataKeys }: RepositoryFile, master: KeyObject, { random, now }: KeyOptions) {
  const id = (dataKeys.at(-1)?.id ?? 0) + 1;
  const key = newKey(random);
  const entry = { id, createdAt: now };
  const by = derive(master, uuid, 'data key wrap');
  return { key: { id, key }, entry: { ...entry, ...wrap(by, key, dataKeyContext(uuid, entry), random) } };
}

// ---- the key check -------------------------------------------------------------------------------

const macOf = (checkKey: KeyObject, signedText: string): Buffer =>
  createHmac('sha256', checkKey).update(signedText).digest();

/** The file with its key check made anew: for every change of it, of the keys or not. */
export function signRepositoryFile(file: RepositoryFile, { checkKey }: Pick<VaultKeys, 'checkKey'>): RepositoryFile {
  const text = signedTextOf(file);
  const mac = macOf(checkKey, text).toString('hex');
  return { ...file, keyCheck: { sum: keySumOf(text, mac), mac } };
}

function checkSignature(file: RepositoryFile, { checkKey, uuid }: VaultKeys): void {
  const mac = Buffer.from(file.keyCheck?.mac ?? '', 'hex');
  const right = macOf(checkKey, signedTextOf(file));
  if (file.uuid === uuid && mac.length === right.length && timingSafeEqual(mac, right)) return;
  throw new TidemarkError('TAMPERED', 'repository.json was changed by somebody without its keys', {
    repository: file.repository,
  });
}

// ---- what is asked of keys -----------------------------------------------------------------------

/** Of the repository.json of a new, still empty repository, that of an encrypted one. BAD_REQUEST for a weak secret. */
export async function createKeys(file: RepositoryFile, secret: Secret, options: KeyOptions): Promise<Unlocked> {
  if (file.keySlots.length > 0) throw new TidemarkError('BUG', `repository ${file.repository} has keys already`);
  const master = newKey(options.random);
  const { key, entry } = newDataKey(file, master, options);
  const keys = keysOf(master, file.uuid, [key]);
  const changed = {
    ...file,
    features: { ...file.features, must: [...file.features.must, ENCRYPTION] },
    keySlots: [await newSlot(file, master, secret, options)],
    dataKeys: [entry],
  };
  return { file: signRepositoryFile(changed, keys.vault), keys };
}

/**
 * The keys of a repository.json that was parsed (so its sum is right). WRONG_KEY when the secret opens no slot;
 * REPOSITORY_NEWER or _CORRUPT when none opens and one of its kind has a derivation that is not known or beyond the limits;
 * TAMPERED when the file is not as somebody with the keys wrote it.
 */
export async function unlock(file: RepositoryFile, secret: Secret): Promise<RepositoryKeys> {
  const master = await openSlot(file, secret);
  const locked = keysOf(master, file.uuid, []);
  checkSignature(file, locked.vault);
  return { master, vault: { ...locked.vault, dataKeys: openDataKeys(file, master) } };
}

function openDataKeys(file: RepositoryFile, master: KeyObject): DataKeyInUse[] {
  const by = derive(master, file.uuid, 'data key wrap');
  return file.dataKeys.map((entry) => {
    const key = unwrap(by, entry, dataKeyContext(file.uuid, entry));
    if (!key) throw new TidemarkError('TAMPERED', `data key ${entry.id} does not open`, { dataKey: entry.id });
    return { id: entry.id, key };
  });
}

/** Data keys that were made since those in use. TAMPERED, also when one of these is not in it. */
export function newerDataKeys(file: RepositoryFile, { master, vault }: RepositoryKeys): DataKeyInUse[] {
  checkSignature(file, vault);
  const opened = openDataKeys(file, master);
  const newest = vault.dataKeys.at(-1)?.id ?? 0;
  const isThere = ({ id, key }: DataKeyInUse): boolean => opened.some((one) => one.id === id && one.key.equals(key));
  const lost = vault.dataKeys.find((one) => !isThere(one));
  if (lost) {
    const message = `repository.json lacks data key ${lost.id}, which is in use: somebody put an older one back`;
    throw new TidemarkError('TAMPERED', message, { dataKey: lost.id });
  }
  return opened.filter(({ id }) => id > newest);
}

async function openSlot(file: RepositoryFile, secret: Secret): Promise<KeyObject> {
  const slots = file.keySlots.filter(({ kind }) => kind === secret.kind);
  let refusal: unknown = null;
  for (const slot of slots) {
    try {
      const master = unwrap(await slotKeyOf(slot, secret), slot, slotContext(file.uuid, slot));
      if (master) return master;
    } catch (error) {
      refusal ??= error;
    }
  }
  if (refusal !== null) throw refusal;
  const what = secret.kind === 'passphrase' ? 'passphrase' : 'key file';
  const details = { repository: file.repository, kind: secret.kind, slots: slots.map(({ id }) => id) };
  throw new TidemarkError('WRONG_KEY', `the ${what} opens no key slot of repository ${file.repository}`, details);
}

/** One more secret that opens it. BAD_REQUEST when the secret is weak or there are 16 slots; TAMPERED. */
export async function addSlot(
  file: RepositoryFile,
  keys: RepositoryKeys,
  secret: Secret,
  options: KeyOptions,
): Promise<RepositoryFile> {
  checkSignature(file, keys.vault);
  if (file.keySlots.length >= MAX_KEY_SLOTS)
    throw new TidemarkError('BAD_REQUEST', `repository ${file.repository} has ${MAX_KEY_SLOTS} key slots already`);
  const slot = await newSlot(file, keys.master, secret, options);
  return signRepositoryFile({ ...file, keySlots: [...file.keySlots, slot] }, keys.vault);
}

/** NOT_FOUND; BAD_REQUEST for the last slot; TAMPERED. */
export function removeSlot(file: RepositoryFile, keys: RepositoryKeys, slotId: string): RepositoryFile {
  checkSignature(file, keys.vault);
  const keySlots = file.keySlots.filter(({ id }) => id !== slotId);
  if (keySlots.length === file.keySlots.length)
    throw new TidemarkError('NOT_FOUND', `repository ${file.repository} has no key slot ${slotId}`, { slot: slotId });
  if (keySlots.length === 0)
    throw new TidemarkError('BAD_REQUEST', `key slot ${slotId} is the last: without it nothing can be read`);
  return signRepositoryFile({ ...file, keySlots }, keys.vault);
}

/** A new data key for new records; records of the older ones stay readable. BAD_REQUEST after 256 of them; TAMPERED. */
export function rotateDataKey(file: RepositoryFile, keys: RepositoryKeys, options: KeyOptions): Unlocked {
  checkSignature(file, keys.vault);
  if (file.dataKeys.length >= MAX_DATA_KEYS)
    throw new TidemarkError('BAD_REQUEST', `repository ${file.repository} has ${MAX_DATA_KEYS} data keys already`);
  const { key, entry } = newDataKey(file, keys.master, options);
  const vault = { ...keys.vault, dataKeys: [...keys.vault.dataKeys, key] };
  const changed = signRepositoryFile({ ...file, dataKeys: [...file.dataKeys, entry] }, vault);
  return { file: changed, keys: { master: keys.master, vault } };
}
