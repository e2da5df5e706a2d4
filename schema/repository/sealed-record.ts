/** Records of a plain and of an encrypted repository: from payload to stored bytes and back (FORMAT.md, "Record"). */
import { TidemarkError } from '../domain/errors.ts';
import type { Random } from '../domain/seams.ts';
import { sumOf, sumOfParts } from './digest.ts';
import type { DataKeys, VaultKeys } from './keys.ts';
import { SALT_BYTES, TAG_BYTES } from './limits.ts';
import {
  encodeRecordHeader,
  isSoundShape,
  RECORD_SALT_AT,
  recordError,
  withPayloadSum,
  type RecordAt,
  type RecordHeader,
} from './record.ts';
import { open, ownSalt, seal, type Sealing } from './sealing.ts';

/** `payload`: encoded with `codec`. `id`: 32 bytes. */
export type NewRecord = Pick<RecordHeader, 'kind' | 'codec' | 'rawLength' | 'restorePointId' | 'id'> & {
  payload: Uint8Array;
};
/** What goes into the pack: `header`, then each of `parts`; `storedLength` is theirs together. */
export type SealedRecord = { header: Buffer; parts: readonly Uint8Array[]; storedLength: number };

export type RecordVault = {
  /** BUG for lengths that do not fit the codec. `parts` may be the memory of the payload. */
  sealRecord(record: NewRecord): SealedRecord;
  /**
   * The payload, still encoded, of a record whose header is sound and whose `stored` bytes were read from `at`.
   * DAMAGED_BLOCK when they are not what was written, TAMPERED when they are whole and nobody with the keys wrote them.
   * `unsummed`: where only the sum says the former, somebody else looks.
   */
  openRecord(header: RecordHeader, stored: Uint8Array, at: RecordAt, unsummed?: boolean): Uint8Array;
  /** Besides those it had; new records have the last of `dataKeys`. */
  takeDataKeys(keys: DataKeys): void;
};

const LABEL = 'tidemark record';
/** Of the header: all that is known before encryption. */
const ASSOCIATED_HEADER_BYTES = 96;
const NO_SUM = Buffer.alloc(16);
const NO_SALT = Buffer.alloc(SALT_BYTES);

function checkShape({ kind, codec, rawLength, id, payload }: NewRecord): void {
  if (id.byteLength === 32 && isSoundShape({ codec, rawLength, storedLength: payload.byteLength })) return;
  const lengths = `${rawLength} bytes stored in ${payload.byteLength}`;
  throw new TidemarkError('BUG', `${kind} record of ${lengths} with codec ${codec}`);
}

const sumIsWrong = (header: RecordHeader, stored: Uint8Array): boolean =>
  sumOf(stored).compare(header.payloadSum) !== 0;

export const plainRecords: RecordVault = {
  sealRecord: (record) => {
    checkShape(record);
    const { payload, ...fields } = record;
    const storedLength = payload.byteLength;
    const header = encodeRecordHeader({ ...fields, storedLength, payloadSum: sumOf(payload) });
    return { header, parts: [payload], storedLength };
  },
  openRecord: (header, stored, at, unsummed = false) => {
    if (header.encryption) throw recordError('DAMAGED_BLOCK', header.id, at, 'it is encrypted, the repository is not');
    if (stored.byteLength !== header.storedLength) throw recordError('DAMAGED_BLOCK', header.id, at, 'it is cut short');
    if (!unsummed && sumIsWrong(header, stored))
      throw recordError('DAMAGED_BLOCK', header.id, at, 'its payload is damaged');
    return stored;
  },
  takeDataKeys: () => undefined,
};

export function encryptedRecords(
  { uuid, ...keys }: Pick<VaultKeys, 'uuid' | keyof DataKeys>,
  random: Random,
): RecordVault {
  const sealings = new Map<number, Sealing>();
  let newest: DataKeys['dataKeys'][number] | undefined;
  const takeDataKeys = ({ dataKeys, upcoming }: DataKeys): void => {
    for (const { id, key } of [...dataKeys, ...upcoming]) sealings.set(id, { root: key, label: LABEL });
    newest = dataKeys.at(-1);
  };
  takeDataKeys(keys);
  const repository = Buffer.from(uuid, 'hex');
  const contextOf = (header: Buffer): Buffer =>
    Buffer.concat([repository, header.subarray(0, ASSOCIATED_HEADER_BYTES)]);
  return {
    takeDataKeys,
    sealRecord: (record) => {
      checkShape(record);
      if (!newest) throw new TidemarkError('BUG', 'an encrypted repository without a data key');
      const { payload, ...fields } = record;
      const storedLength = payload.byteLength + TAG_BYTES;
      const encryption = { keyId: newest.id, salt: NO_SALT };
      const header = encodeRecordHeader({ ...fields, storedLength, payloadSum: NO_SUM, encryption });
      const sealing = { root: newest.key, label: LABEL };
      const salt = ownSalt(sealing, header.subarray(0, RECORD_SALT_AT), random.bytes(SALT_BYTES));
      salt.copy(header, RECORD_SALT_AT);
      const { ciphertext, tag } = seal(sealing, salt, contextOf(header), payload);
      const parts = [ciphertext, tag];
      return { header: withPayloadSum(header, sumOfParts(parts)), parts, storedLength };
    },
    openRecord: (header, stored, at) => {
      const refused = (code: 'DAMAGED_BLOCK' | 'TAMPERED', why: string) => recordError(code, header.id, at, why);
      const { encryption } = header;
      if (!encryption) throw refused('TAMPERED', 'it is not encrypted, the repository is');
      if (stored.byteLength !== header.storedLength) throw refused('DAMAGED_BLOCK', 'it is cut short');
      const sealing = sealings.get(encryption.keyId);
      // The tag says more than the sum: that is looked at only to tell why a tag fails.
      const payload = sealing && open(sealing, encryption.salt, contextOf(encodeRecordHeader(header)), stored);
      if (payload) return payload;
      if (sumIsWrong(header, stored)) throw refused('DAMAGED_BLOCK', 'its payload is damaged');
      if (!sealing) throw refused('TAMPERED', `repository.json has no data key ${encryption.keyId}`);
      throw refused('TAMPERED', 'its authentication tag is wrong');
    },
  };
}
