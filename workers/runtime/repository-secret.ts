/** The secret of an encrypted repository, from where its configuration says. It is never logged, and in no error. */
import { isUtf8 } from 'node:buffer';
import { open } from 'node:fs/promises';
import type { EncryptionConfig } from '../../schema/domain/configuration.ts';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { Log } from '../../schema/domain/seams.ts';
import { MAX_KEY_FILE_BYTES } from '../../schema/repository/limits.ts';
import type { Secret } from '../../schema/repository/secrets.ts';

export type SecretSources = { environment: Record<string, string | undefined>; log: Log };

/** KEY_MISSING when it is not where it should be; WRONG_KEY when it cannot be one. */
export async function readSecret(encryption: EncryptionConfig, { environment, log }: SecretSources): Promise<Secret> {
  if ('keyFile' in encryption) return { kind: 'keyfile', content: await readSmallFile(encryption.keyFile, log) };
  if ('passphraseFile' in encryption) {
    const { passphraseFile } = encryption;
    return { kind: 'passphrase', passphrase: textOf(await readSmallFile(passphraseFile, log), passphraseFile) };
  }
  const { passphraseEnvironment: variable } = encryption;
  const passphrase = environment[variable];
  if (passphrase) return { kind: 'passphrase', passphrase };
  throw new TidemarkError('KEY_MISSING', `the environment has no passphrase in ${variable}`, { variable });
}

/** At most one byte more than a secret may have: who uses it refuses that. */
async function readSmallFile(path: string, log: Log): Promise<Buffer> {
  try {
    const handle = await open(path, 'r');
    try {
      const { mode } = await handle.stat();
      if (isOpenToOthers(mode))
        log.warn('the key of a repository can be used by every user of this machine', { path, mode: octal(mode) });
      const bytes = Buffer.alloc(MAX_KEY_FILE_BYTES + 1);
      let length = 0;
      for (let got = -1; got !== 0 && length < bytes.length; length += got)
        got = (await handle.read(bytes, length, bytes.length - length)).bytesRead;
      return bytes.subarray(0, length);
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw new TidemarkError('KEY_MISSING', `key of a repository: ${messageOf(error)}`, { path }, error);
  }
}

export const isOpenToOthers = (mode: number): boolean => (mode & 0o007) !== 0;
const octal = (mode: number): string => (mode & 0o777).toString(8);

/** Without the one line end that editors leave. */
function textOf(bytes: Buffer, path: string): string {
  if (isUtf8(bytes)) return bytes.toString().replace(/\r?\n$/, '');
  throw new TidemarkError('WRONG_KEY', `the passphrase in ${path} is not UTF-8`, { path });
}
