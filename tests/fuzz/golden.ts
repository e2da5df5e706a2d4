/** Golden files of the repository's format as inputs, and what targets of it share. */
import { readFileSync } from 'node:fs';
import { crcOf } from '../../schema/repository/digest.ts';

export const golden = (name: string): Buffer => {
  const bytes = readFileSync(new URL(`../../schema/repository/golden/${name}`, import.meta.url));
  return name.endsWith('.hex') ? Buffer.from(bytes.toString('latin1').replaceAll(/\s/g, ''), 'hex') : bytes;
};
/** Parsers of bytes work on views of them. */
export const NOTHING = (): number => 0;
/** Parsers of text hash it: its bytes once more, three for each that was no UTF-8. */
export const ITS_BYTES = (inputBytes: number): number => 3 * inputBytes + Buffer.poolSize;

/** The crc at `crcAt` of a structure that starts at `at`, over what is before it; nothing where it does not fit. */
export function mendCrc(bytes: Buffer, at: number, crcAt: number): void {
  if (at >= 0 && at + crcAt + 4 <= bytes.length) bytes.writeUInt32LE(crcOf(bytes.subarray(at, at + crcAt)), at + crcAt);
}
