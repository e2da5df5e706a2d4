/** Documents in their envelope (FORMAT.md, "Sealed documents"). */
import { TidemarkError } from '../domain/errors.ts';
import { decodeChecked } from './checked-json.ts';
import { hexDigestOf } from './digest.ts';
import type { VaultKeys } from './keys.ts';
import { FORMAT_VERSION, MAX_DOCUMENT_BYTES, MAX_SEALED_DOCUMENT_BYTES } from './limits.ts';
import { open, ownSalt, seal } from './sealing.ts';

/** What a document is, and which one: `<vmKey>/<restore point>` of a manifest, `<restore point>` of others, `state`. */
export type DocumentName = { role: 'manifest' | 'head' | 'tombstone' | 'flags' | 'mark' | 'state'; name: string };

export type TextVault = {
  /** The text of the file. The same document under the same name gives the same text. */
  sealText(of: DocumentName, text: string): string;
  /**
   * The document in the text of a file; `file` names it in errors. REPOSITORY_CORRUPT when it is damaged, TAMPERED when
   * it is whole and nobody with the keys wrote it under that name.
   */
  openText(of: DocumentName, source: string, file: string): string;
};

const LABEL = 'tidemark document';

export const plainTexts: TextVault = {
  sealText: (_of, text) => text,
  openText: (_of, source) => source,
};

const firstLineOf = (role: string): string => `TMDE ${FORMAT_VERSION} ${role}\n`;
const envelope = /^(TMDE [0-9]+ [a-z-]+\n)([0-9a-f]{48})\n([A-Za-z0-9+/]+=*)\n([0-9a-f]{64})\n$/;

const corrupt = (file: string, why: string): TidemarkError =>
  new TidemarkError('REPOSITORY_CORRUPT', `${file} ${why}`, { file });
const tampered = (file: string, why: string): TidemarkError =>
  new TidemarkError('TAMPERED', `${file} ${why}`, { file });

export function encryptedTexts({ uuid, documentKey }: Pick<VaultKeys, 'uuid' | 'documentKey'>): TextVault {
  const sealing = { root: documentKey, label: LABEL };
  const contextOf = ({ role, name }: DocumentName): Buffer => Buffer.from(`${firstLineOf(role)}${uuid}\n${name}\n`);
  return {
    sealText: (of, text) => {
      const plain = Buffer.from(text);
      if (plain.length > MAX_DOCUMENT_BYTES)
        throw new TidemarkError('BUG', `${of.role} ${of.name} has more than ${MAX_DOCUMENT_BYTES} bytes`);
      const context = contextOf(of);
      const salt = ownSalt(sealing, context, plain);
      const { ciphertext, tag } = seal(sealing, salt, context, plain);
      const content = Buffer.concat([ciphertext, tag]).toString('base64');
      const body = `${firstLineOf(of.role)}${salt.toString('hex')}\n${content}\n`;
      return `${body}${hexDigestOf(body)}\n`;
    },
    openText: (of, source, file) => {
      const { firstLine, salt, sealed } = parseEnvelope(source, file);
      const plain = firstLine === firstLineOf(of.role) ? open(sealing, salt, contextOf(of), sealed) : null;
      if (!plain) throw tampered(file, `was not written as ${of.role} ${of.name} with the keys of this repository`);
      return plain.toString();
    },
  };
}

function parseEnvelope(source: string, file: string): { firstLine: string; salt: Buffer; sealed: Buffer } {
  const lines = source.length <= MAX_SEALED_DOCUMENT_BYTES ? envelope.exec(source) : null;
  if (!lines) throw isPlainDocument(source) ? tampered(file, 'is not encrypted') : corrupt(file, 'is not understood');
  const [, firstLine = '', salt = '', content = '', digest = ''] = lines;
  if (hexDigestOf(`${firstLine}${salt}\n${content}\n`) !== digest) throw corrupt(file, 'does not match its checksum');
  const sealed = Buffer.from(content, 'base64');
  // Of several spellings of the same bytes, one only is ours.
  if (sealed.toString('base64') !== content) throw tampered(file, 'is not as Tidemark writes it');
  return { firstLine, salt: Buffer.from(salt, 'hex'), sealed };
}

function isPlainDocument(source: string): boolean {
  try {
    decodeChecked(source, '');
    return true;
  } catch {
    return false;
  }
}
