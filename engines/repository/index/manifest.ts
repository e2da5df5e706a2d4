/** Which segments make up the index, and which packs they cover: replaced whole, the one point from which both count. */
import { hexDigestOf } from '../../../schema/repository/digest.ts';
import { INDEX_VERSION } from './segment-format.ts';
import type { SegmentRef } from './segment.ts';

export const MANIFEST_NAME = 'manifest';

/** `packs`: of which the segments hold every record; entries of other numbers are of packs that are gone. */
export type IndexManifest = {
  version: typeof INDEX_VERSION;
  uuid: string;
  generation: number;
  nextSegment: number;
  nextPack: number;
  /** The older first. */
  segments: SegmentRef[];
  packs: [number: number, name: string][];
};

export function encodeManifest(manifest: Omit<IndexManifest, 'version'>): Buffer {
  const text = JSON.stringify({ version: INDEX_VERSION, ...manifest });
  return Buffer.from(`${hexDigestOf(text)}\n${text}`);
}

/** Throws when it is damaged, of another version, or of another repository or generation. */
export function parseManifest(bytes: Buffer, of: { uuid: string; generation: number }): IndexManifest {
  const [digest, text] = bytes.toString().split('\n');
  if (text === undefined || digest !== hexDigestOf(text)) throw new Error('the manifest of the index is damaged');
  const manifest = JSON.parse(text) as IndexManifest;
  const { version, uuid, generation } = manifest;
  if (version !== INDEX_VERSION || uuid !== of.uuid || generation !== of.generation)
    throw new Error(`an index of version ${version}, repository ${uuid}, generation ${generation}`);
  return manifest;
}
