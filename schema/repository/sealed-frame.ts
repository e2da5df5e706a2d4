/** Frames of a ledger as they lie in its file (FORMAT.md, "Open restore point"). */
import type { RestorePointId } from '../domain/ids.ts';
import { TidemarkError } from '../domain/errors.ts';
import { asBuffer, isZero, sumOfParts } from './digest.ts';
import type { VaultKeys } from './keys.ts';
import { decodeLedgerHeader } from './ledger.ts';
import {
  FORMAT_VERSION,
  LEDGER_HEADER_BYTES,
  MAX_LEDGER_FRAME_BYTES,
  SALT_BYTES,
  SEALED_FRAME_HEADER_BYTES,
  TAG_BYTES,
} from './limits.ts';
import { open, ownSalt, seal } from './sealing.ts';

/**
 * Where a frame lies. `before`: the 16 bytes that lie before it in the file, empty at its start. So each frame is bound to
 * all before it, and is sealed only when those are in the file.
 */
export type FramePlace = { ledger: RestorePointId; before: Uint8Array };

export type FrameVault = {
  /** Bytes that `frameLengthOf` needs. */
  readonly frameHeaderBytes: number;
  /** The longest frame in the file. */
  readonly maxFrameBytes: number;
  /** Length in the file of the frame that begins with `header`; null when none begins so. */
  frameLengthOf(header: Uint8Array): number | null;
  /** `frame`: of `encodeLedgerRecord`. */
  sealFrame(place: FramePlace, frame: Uint8Array): Uint8Array;
  /**
   * What `sealFrame` was given, for `decodeLedgerRecord` (which alone tells a damaged plain one); null when it is torn or
   * damaged. TAMPERED when it is whole and was not written there with the keys of the repository.
   */
  openFrame(place: FramePlace, bytes: Uint8Array): Uint8Array | null;
};

export const plainFrames: FrameVault = {
  frameHeaderBytes: LEDGER_HEADER_BYTES,
  maxFrameBytes: MAX_LEDGER_FRAME_BYTES,
  frameLengthOf: (bytes) => {
    const header = decodeLedgerHeader(bytes);
    return header && LEDGER_HEADER_BYTES + header.bodyBytes;
  },
  sealFrame: (_place, frame) => frame,
  openFrame: (_place, bytes) => bytes,
};

const MAGIC = Buffer.from('TMLE');
const CIPHER_AES_256_GCM = 1;
const LABEL = 'tidemark ledger';
/** Of the header: what is known before encryption. */
const ASSOCIATED_HEADER_BYTES = 16;
const SALT_AT = 16;
const SUM_AT = 48;
const NO_TAG = Buffer.alloc(TAG_BYTES);

function newHeader(frameBytes: number): Buffer {
  const header = Buffer.alloc(SEALED_FRAME_HEADER_BYTES);
  MAGIC.copy(header);
  header[4] = FORMAT_VERSION;
  header[5] = CIPHER_AES_256_GCM;
  header.writeUInt32LE(frameBytes + TAG_BYTES, 8);
  return header;
}

/** Length of the whole sealed frame; null for what cannot begin one. */
function sealedLengthOf(source: Uint8Array): number | null {
  if (source.byteLength < SEALED_FRAME_HEADER_BYTES) return null;
  const bytes = asBuffer(source);
  if (bytes.compare(MAGIC, 0, 4, 0, 4) !== 0 || bytes[4] !== FORMAT_VERSION || bytes[5] !== CIPHER_AES_256_GCM)
    return null;
  const zeros = [bytes.subarray(6, 8), bytes.subarray(12, 16), bytes.subarray(40, 48)];
  const frameBytes = bytes.readUInt32LE(8) - TAG_BYTES;
  const fits = frameBytes >= LEDGER_HEADER_BYTES && frameBytes <= MAX_LEDGER_FRAME_BYTES;
  return fits && zeros.every(isZero) ? SEALED_FRAME_HEADER_BYTES + frameBytes + TAG_BYTES : null;
}

export function encryptedFrames({ uuid, ledgerKey }: Pick<VaultKeys, 'uuid' | 'ledgerKey'>): FrameVault {
  const sealing = { root: ledgerKey, label: LABEL };
  const contextOf = ({ ledger, before }: FramePlace, header: Buffer): Buffer => {
    const tag = before.byteLength === 0 ? NO_TAG : before;
    return Buffer.concat([Buffer.from(uuid + ledger, 'hex'), tag, header.subarray(0, ASSOCIATED_HEADER_BYTES)]);
  };
  return {
    frameHeaderBytes: SEALED_FRAME_HEADER_BYTES,
    maxFrameBytes: SEALED_FRAME_HEADER_BYTES + MAX_LEDGER_FRAME_BYTES + TAG_BYTES,
    frameLengthOf: sealedLengthOf,
    sealFrame: (place, frame) => {
      const header = newHeader(frame.byteLength);
      const context = contextOf(place, header);
      const salt = ownSalt(sealing, context, frame);
      salt.copy(header, SALT_AT);
      const { ciphertext, tag } = seal(sealing, salt, context, frame);
      sumOfParts([header.subarray(0, SUM_AT), ciphertext, tag]).copy(header, SUM_AT);
      return Buffer.concat([header, ciphertext, tag]);
    },
    openFrame: (place, source) => {
      const bytes = asBuffer(source);
      if (sealedLengthOf(bytes) !== bytes.length) return null;
      const header = bytes.subarray(0, SEALED_FRAME_HEADER_BYTES);
      const sealed = bytes.subarray(SEALED_FRAME_HEADER_BYTES);
      const sum = sumOfParts([header.subarray(0, SUM_AT), sealed]);
      if (sum.compare(header, SUM_AT) !== 0) return null;
      const salt = header.subarray(SALT_AT, SALT_AT + SALT_BYTES);
      const frame = open(sealing, salt, contextOf(place, header), sealed);
      if (frame) return frame;
      const details = { restorePointId: place.ledger };
      throw new TidemarkError(
        'TAMPERED',
        `ledger of ${place.ledger}: a frame was not written there with its keys`,
        details,
      );
    },
  };
}
