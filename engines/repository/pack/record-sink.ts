/** Where a lane's thread puts records: its own open pack, rolled at the target size. */
import { readFileSync } from 'node:fs';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { RecordPlace, RecordSink, Seams } from '../../../schema/domain/seams.ts';
import { sumOf } from '../../../schema/repository/digest.ts';
import { parseRepositoryFile } from '../../../schema/repository/documents.ts';
import { DATA_PACK_TARGET_BYTES, MAX_PACK_RECORDS, PAGE_PACK_TARGET_BYTES } from '../../../schema/repository/limits.ts';
import type { PackContents } from '../../../schema/repository/pack.ts';
import { encodeRecordHeader, isSoundShape, type RecordKind } from '../../../schema/repository/record.ts';
import { storageError } from '../storage/files.ts';
import { layoutOf, type Layout } from '../storage/layout.ts';
import { createPackWriter, type PackWriter } from './pack-writer.ts';

type SinkOptions = {
  layout: Layout;
  uuid: string;
  contents: PackContents;
  seams: Seams;
  /** Bytes at which a pack is closed. */
  targetBytes: number;
};

/**
 * A sink for block records in the repository at `folder` (which must exist). For one thread, one caller at a time:
 * no append while a sync is under way. The caller has checked that `id` is the digest of the decoded payload.
 */
export function openRecordSink(options: { folder: string; seams: Seams; targetBytes?: number }): RecordSink {
  const layout = layoutOf(options.folder);
  const targetBytes = options.targetBytes ?? DATA_PACK_TARGET_BYTES;
  return createSink({ layout, uuid: uuidOf(layout), contents: 'blocks', seams: options.seams, targetBytes });
}

/** A sink for map pages. */
export const openPageSink = (layout: Layout, uuid: string, seams: Seams): RecordSink =>
  createSink({ layout, uuid, contents: 'pages', seams, targetBytes: PAGE_PACK_TARGET_BYTES });

function uuidOf(layout: Layout): string {
  try {
    return parseRepositoryFile(readFileSync(layout.repositoryFile, 'utf8'), layout.repositoryFile).uuid;
  } catch (error) {
    throw storageError(error, layout.repositoryFile);
  }
}

function createSink(options: SinkOptions): RecordSink {
  const { layout, uuid, contents, seams, targetBytes } = options;
  const kind: RecordKind = contents === 'pages' ? 'page' : 'block';
  let current: PackWriter | null = null;
  /** Full packs, published at the next sync: append is synchronous and cannot wait for it. */
  let full: PackWriter[] = [];
  const newPack = (): PackWriter =>
    createPackWriter(layout, contents, uuid, Buffer.from(seams.random.bytes(16)).toString('hex'));

  async function publishFull(): Promise<void> {
    const packs = full;
    full = [];
    for (const pack of packs) await pack.publish();
  }

  return {
    append: (record): RecordPlace => {
      const { id, codec, rawLength, payload, restorePointId } = record;
      const storedLength = payload.byteLength;
      if (id.byteLength !== 32 || !isSoundShape({ codec, rawLength, storedLength }))
        throw new TidemarkError('BUG', `record of ${rawLength} bytes stored in ${storedLength} with codec ${codec}`);
      const payloadSum = sumOf(payload);
      const header = encodeRecordHeader({ kind, codec, rawLength, storedLength, restorePointId, id, payloadSum });
      current ??= newPack();
      const place = { pack: current.packId, offset: current.append(header, payload), storedLength, rawLength, codec };
      if (current.lengthBytes() >= targetBytes || current.recordCount() >= MAX_PACK_RECORDS) {
        full.push(current);
        current = null;
      }
      return place;
    },
    sync: async () => {
      try {
        await publishFull();
        await current?.sync();
      } catch (error) {
        current?.abandon();
        current = null;
        throw error;
      }
    },
    close: async () => {
      if (current) full.push(current);
      current = null;
      await publishFull();
    },
  };
}
