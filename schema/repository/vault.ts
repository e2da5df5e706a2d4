/**
 * Between what a repository means and the bytes it keeps: one object for plain and encrypted repositories. Whatever is
 * written or read goes through it, so that nothing else asks which of the two it is.
 */
import type { Random } from '../domain/seams.ts';
import { createKeyedDigest } from './digest.ts';
import type { RepositoryFile } from './documents.ts';
import { signRepositoryFile, type VaultKeys } from './keys.ts';
import { keyedNames, plainNameOf, type VmKey } from './names.ts';
import { encryptedFrames, plainFrames, type FrameVault } from './sealed-frame.ts';
import { encryptedRecords, plainRecords, type RecordVault } from './sealed-record.ts';
import { encryptedTexts, plainTexts, type TextVault } from './sealed-text.ts';

export type Vault = RecordVault &
  TextVault &
  FrameVault & {
    readonly isEncrypted: boolean;
    /** Id of the record of a block or page with this digest, 32 bytes each. May be the digest's own memory. */
    idOf(digest: Uint8Array): Uint8Array;
    /** Folder name of a VM. */
    nameOf(vmId: string): VmKey;
    /** What is written as repository.json after a change of it. */
    signFile(file: RepositoryFile): RepositoryFile;
  };

/** `keys`: null in a plain repository. For one thread. */
export function openVault(keys: VaultKeys | null, random: Random): Vault {
  if (keys === null) return plainVault;
  return {
    isEncrypted: true,
    idOf: createKeyedDigest(keys.idKey.export()),
    nameOf: keyedNames(keys.nameKey.export()),
    signFile: (file) => signRepositoryFile(file, keys),
    ...encryptedRecords(keys, random),
    ...encryptedTexts(keys),
    ...encryptedFrames(keys),
  };
}

export const plainVault: Vault = {
  isEncrypted: false,
  idOf: (digest) => digest,
  nameOf: plainNameOf,
  signFile: (file) => file,
  ...plainRecords,
  ...plainTexts,
  ...plainFrames,
};
