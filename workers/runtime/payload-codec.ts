/**
 * Encrypts what workflows and activities are given and give back before it reaches Temporal's server: AES-256-GCM, a key by
 * its id. Keys stand in a file, or in the environment: a line `<id> <64 hex digits>` each. The first encrypts, all decrypt.
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import { isShortName } from '../../schema/domain/ids.ts';

export type Payload = { metadata?: Record<string, Uint8Array> | null; data?: Uint8Array | null };
export type PayloadKeys = ReadonlyMap<string, Buffer>;
export type Codec = {
  encode(payloads: Payload[]): Promise<Payload[]>;
  decode(payloads: Payload[]): Promise<Payload[]>;
};

const ENCODING = 'binary/encrypted';
const CIPHER = 'aes-256-gcm';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const text = (value: string): Uint8Array => Buffer.from(value);

/** BAD_CONFIG names the line, never the key; also when there is none in it. */
export function parsePayloadKeys(lines: string, what: string): PayloadKeys {
  const keys = new Map<string, Buffer>();
  for (const [index, line] of lines.split('\n').entries()) {
    const words = line.trim();
    if (words === '' || words.startsWith('#')) continue;
    const [, id = '', hex = ''] = /^(\S+) +([0-9a-f]{64})$/i.exec(words) ?? [];
    if (!isShortName(id) || keys.has(id))
      throw new TidemarkError('BAD_CONFIG', `${what}, line ${index + 1}: expected an id of its own and 64 hex digits`, {
        what,
      });
    keys.set(id, Buffer.from(hex, 'hex'));
  }
  // Half written, or of a variable that was not filled in: histories must not go on in the clear, with nobody told.
  if (keys.size === 0)
    throw new TidemarkError('BAD_CONFIG', `${what} has no key: take it away where payloads shall not be encrypted`, {
      what,
    });
  return keys;
}

/** Of `TIDEMARK_PAYLOAD_KEYS`, else of the file; null: there is neither, and payloads are not encrypted. BAD_CONFIG. */
export async function loadPayloadCodec(file: string, environment: NodeJS.ProcessEnv): Promise<Codec | null> {
  const given = environment['TIDEMARK_PAYLOAD_KEYS'];
  if (given !== undefined) return createPayloadCodec(parsePayloadKeys(given, 'TIDEMARK_PAYLOAD_KEYS'));
  const lines = await readKeyFile(file);
  return lines === null ? null : createPayloadCodec(parsePayloadKeys(lines, file));
}

async function readKeyFile(file: string): Promise<string | null> {
  try {
    const { mode } = await stat(file);
    if ((mode & 0o077) !== 0)
      throw new Error(`others can use it (mode ${(mode & 0o777).toString(8)}): chmod 600 '${file}'`);
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new TidemarkError('BAD_CONFIG', `keys of payloads in ${file}: ${messageOf(error)}`, { file }, error);
  }
}

/** What was not encrypted, or not by us, is left as it is: histories of before go on. PAYLOAD_KEY_MISSING, TAMPERED. */
export function createPayloadCodec(keys: PayloadKeys): Codec {
  const [id, key] = [...keys][0]!;
  return {
    encode: (payloads) => Promise.resolve(payloads.map((payload) => encrypt(payload, id, key))),
    decode: async (payloads) => payloads.map((payload) => decrypt(payload, keys)),
  };
}

/** Before encryption: length of the metadata (4), the metadata as JSON with base64, the data. */
function pack({ metadata, data }: Payload): Buffer {
  const entries = Object.entries(metadata ?? {}).map(([name, value]) => [name, Buffer.from(value).toString('base64')]);
  const head = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(head.length);
  return Buffer.concat([length, head, data ?? new Uint8Array()]);
}

function unpack(bytes: Buffer): Payload {
  const end = 4 + bytes.readUInt32BE(0);
  const head = JSON.parse(bytes.subarray(4, end).toString()) as Record<string, string>;
  const metadata = Object.entries(head).map(([name, value]) => [name, Buffer.from(value, 'base64')] as const);
  return { metadata: Object.fromEntries(metadata), data: bytes.subarray(end) };
}

function encrypt(payload: Payload, id: string, key: Buffer): Payload {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, key, nonce).setAAD(Buffer.from(id));
  const data = Buffer.concat([nonce, cipher.update(pack(payload)), cipher.final(), cipher.getAuthTag()]);
  return {
    metadata: { encoding: text(ENCODING), 'encryption-cipher': text(CIPHER), 'encryption-key-id': text(id) },
    data,
  };
}

function decrypt(payload: Payload, keys: PayloadKeys): Payload {
  const said = (name: string): string => Buffer.from(payload.metadata?.[name] ?? []).toString();
  if (said('encoding') !== ENCODING || said('encryption-cipher') !== CIPHER) return payload;
  const id = said('encryption-key-id');
  const key = keys.get(id);
  if (!key)
    throw new TidemarkError('PAYLOAD_KEY_MISSING', `a payload is encrypted with key ${id}, which is not here`, {
      key: id,
    });
  const data = Buffer.from(payload.data ?? []);
  try {
    const decipher = createDecipheriv(CIPHER, key, data.subarray(0, NONCE_BYTES)).setAAD(Buffer.from(id));
    decipher.setAuthTag(data.subarray(-TAG_BYTES));
    return unpack(Buffer.concat([decipher.update(data.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]));
  } catch (error) {
    throw new TidemarkError(
      'TAMPERED',
      `a payload does not fit its key ${id}: ${messageOf(error)}`,
      { key: id },
      error,
    );
  }
}
