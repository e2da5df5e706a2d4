/** A secret of a repository as commands take it: where it lies, never itself. */
import type { EncryptionConfig } from '../schema/domain/configuration.ts';
import { TidemarkError } from '../schema/domain/errors.ts';

export type SecretOptions = { passphraseFile?: string; keyFile?: string; passphraseEnvironment?: string };

/** Null: none. BAD_REQUEST for more than one. */
export function secretPlace({
  passphraseFile,
  keyFile,
  passphraseEnvironment,
}: SecretOptions): EncryptionConfig | null {
  const given = [
    ...(passphraseFile === undefined ? [] : [{ passphraseFile }]),
    ...(keyFile === undefined ? [] : [{ keyFile }]),
    ...(passphraseEnvironment === undefined ? [] : [{ passphraseEnvironment }]),
  ];
  const [only, second] = given;
  if (second === undefined) return only ?? null;
  throw new TidemarkError('BAD_REQUEST', 'give one of --passphrase-file, --key-file, --passphrase-environment');
}
