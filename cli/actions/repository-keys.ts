/** `tidemark repository key ...`: by this process itself, beside a worker that has the repository. */
import { open } from 'node:fs/promises';
import { addKey, describeKeys, removeKey, rotateKey, type KeyWork } from '../../engines/repository/change-keys.ts';
import { openStorage } from '../../engines/repository/storage/storage.ts';
import { didYouMean } from '../../engines/site/nearest-name.ts';
import type { RepositoryConfig } from '../../schema/domain/configuration.ts';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import { formatBytes } from '../../schema/domain/figures.ts';
import type { DataKey, KeySlot } from '../../schema/repository/key-shapes.ts';
import { newKeyFile } from '../../schema/repository/secrets.ts';
import { loadMachine } from '../../workers/runtime/config.ts';
import { readSecret } from '../../workers/runtime/repository-secret.ts';
import { commandSeams } from '../command-seams.ts';
import { exitCodes } from '../exit-codes.ts';
import { type Column, formatTime, renderTable } from '../output/table.ts';
import { printJson } from '../run-command.ts';
import { type SecretOptions, secretPlace } from '../secret-options.ts';
import { layoutOf } from '../stack-access.ts';

export type KeyOptions = { state?: string; json?: boolean };
export type AddKeyOptions = KeyOptions & SecretOptions;

const seams = commandSeams;
const { log } = seams;

/** NOT_FOUND: this machine has no such repository. */
async function findRepository(name: string, { state }: KeyOptions): Promise<RepositoryConfig> {
  const known = (await loadMachine(layoutOf(state)))?.repositories ?? [];
  const found = known.find(({ repositoryId }) => repositoryId === name);
  if (found) return found;
  const names = known.map(({ repositoryId }) => repositoryId);
  const message = `this machine has no repository ${name}${didYouMean(name, names)}`;
  throw new TidemarkError('NOT_FOUND', message, { repository: name, repositories: names });
}

async function workOn(name: string, options: KeyOptions): Promise<KeyWork> {
  const { repositoryId, folder, encryption } = await findRepository(name, options);
  if (!encryption)
    throw new TidemarkError('BAD_REQUEST', `repository ${name} has no \`encryption\` in site.yaml`, {
      repository: name,
    });
  const secret = await readSecret(encryption, { environment: process.env, log });
  return { storage: openStorage({ kind: 'folder', folder }), repositoryId, secret, seams };
}

function print(options: { json?: boolean }, value: object, text: string): number {
  if (options.json) printJson(value);
  else console.log(text);
  return exitCodes.ok;
}

/** What of them is of any use to a person. */
const shownSlot = ({ id, kind, kdf, createdAt }: KeySlot) => ({ id, kind, kdf: costOf(kdf), createdAt });
const shownDataKey = ({ id, createdAt }: DataKey) => ({ id, createdAt });

/** Parameters of a derivation, without its salt. */
function costOf({ name, ...parameters }: KeySlot['kdf'] & { n?: unknown; r?: unknown; p?: unknown }) {
  const { n, r, p } = parameters;
  return name === 'scrypt' ? { name, n, r, p } : { name };
}

const columns: Column<ReturnType<typeof shownSlot>>[] = [
  { title: 'SLOT', of: ({ id }) => id },
  { title: 'KIND', of: ({ kind }) => kind },
  { title: 'MADE', of: ({ createdAt }) => formatTime(createdAt) },
  {
    title: 'DERIVATION',
    of: ({ kdf }) =>
      kdf.n === undefined ? kdf.name : `${kdf.name}, ${formatBytes(128 * Number(kdf.n) * Number(kdf.r))}`,
  },
];

export async function listKeys(name: string, options: KeyOptions): Promise<number> {
  const { repositoryId, folder } = await findRepository(name, options);
  const file = await describeKeys(openStorage({ kind: 'folder', folder }), repositoryId);
  const keySlots = file.keySlots.map(shownSlot);
  const dataKeys = file.dataKeys.map(shownDataKey);
  const newest = dataKeys.at(-1);
  const text = newest
    ? `${renderTable(keySlots, columns)}\n\ndata key ${newest.id} of ${dataKeys.length} is in use, made ${formatTime(newest.createdAt)}`
    : `repository ${name} is not encrypted`;
  return print(options, { repository: name, keySlots, dataKeys }, text);
}

export async function addKeyTo(name: string, options: AddKeyOptions): Promise<number> {
  const encryption = secretPlace(options);
  if (encryption === null)
    throw new TidemarkError('BAD_REQUEST', 'give one of --passphrase-file, --key-file, --passphrase-environment');
  const work = await workOn(name, options);
  const secret = await readSecret(encryption, { environment: process.env, log });
  const slot = shownSlot(await addKey(work, secret));
  return print(options, { repository: name, keySlot: slot }, `slot ${slot.id} (${slot.kind}) opens repository ${name}`);
}

export async function removeKeyFrom(name: string, slot: string, options: KeyOptions): Promise<number> {
  await removeKey(await workOn(name, options), slot);
  const text = `slot ${slot} opens repository ${name} no more, but for older copies of its repository.json`;
  return print(options, { repository: name, removed: slot }, text);
}

export async function rotateKeyOf(name: string, options: KeyOptions): Promise<number> {
  const dataKey = shownDataKey(await rotateKey(await workOn(name, options)));
  const text = `data key ${dataKey.id} is for what repository ${name} writes: a worker that runs takes it up when the backup of its next VM begins`;
  return print(options, { repository: name, dataKey }, text);
}

/** TARGET_EXISTS. */
export async function makeKeyFile(file: string, options: { json?: boolean }): Promise<number> {
  try {
    const handle = await open(file, 'wx', 0o600);
    try {
      await handle.writeFile(newKeyFile(seams.random));
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    const isThere = (error as NodeJS.ErrnoException).code === 'EEXIST';
    const message = isThere ? `${file} exists already` : `cannot write ${file}: ${messageOf(error)}`;
    throw new TidemarkError(isThere ? 'TARGET_EXISTS' : 'STORAGE_ERROR', message, { file }, error);
  }
  return print(options, { file }, `${file} is a new key file; keep a copy of it apart from the repository`);
}
