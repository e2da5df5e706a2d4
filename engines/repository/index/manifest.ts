/** Which segments make up the index, and which packs they cover: replaced whole, the one point from which both count. */
import { hexDigestOf } from '../../../schema/repository/digest.ts';
import { DIGEST_BYTES } from '../../../schema/repository/limits.ts';
import { INDEX_VERSION } from './segment-format.ts';
import type { SegmentRef } from './segment.ts';

export const MANIFEST_NAME = 'manifest';

/** What the first line says of it. */
type Head = {
  version: typeof INDEX_VERSION;
  uuid: string;
  generation: number;
  nextSegment: number;
  nextPack: number;
  /** The older first. */
  segments: SegmentRef[];
};

/** `packs`: of which the segments hold every record; entries of other numbers are of packs that are gone. */
export type IndexManifest = Omit<Head, 'version'> & { packs: [number: number, name: string][] };

/** Digest of what follows; the head, in JSON; number and name of each pack. A line each. */
export function encodeManifest({ packs, ...rest }: IndexManifest): Buffer {
  const head: Head = { version: INDEX_VERSION, ...rest };
  let text = JSON.stringify(head);
  for (const [number, name] of packs) text += `\n${number} ${name}`;
  return Buffer.from(`${hexDigestOf(text)}\n${text}`);
}

/** Throws when it is damaged, of another version, or of another repository or generation. */
export function parseManifest(bytes: Buffer, of: { uuid: string; generation: number }): IndexManifest {
  const text = bytes.toString('utf8', DIGEST_LENGTH + 1);
  if (bytes.toString('utf8', 0, DIGEST_LENGTH) !== hexDigestOf(text))
    throw new Error('the manifest of the index is damaged');
  const [first = '', ...lines] = text.split('\n');
  const { version, ...head } = JSON.parse(first) as Head;
  if (version !== INDEX_VERSION || head.uuid !== of.uuid || head.generation !== of.generation)
    throw new Error(`an index of version ${version}, repository ${head.uuid}, generation ${head.generation}`);
  return { ...head, packs: lines.map(packOfLine) };
}

function packOfLine(line: string): [number, string] {
  const space = line.indexOf(' ');
  return [Number(line.slice(0, space)), line.slice(space + 1)];
}

const DIGEST_LENGTH = 2 * DIGEST_BYTES;
