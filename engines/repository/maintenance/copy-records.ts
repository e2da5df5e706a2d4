/** Copies records verbatim from a closed pack to a new one, each checked on the way. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { releaseMemory, takeMemory } from '../../../schema/domain/memory.ts';
import { sumOf } from '../../../schema/repository/digest.ts';
import { RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import type { PackRecord } from '../../../schema/repository/pack.ts';
import { decodeRecordHeader, recordError } from '../../../schema/repository/record.ts';
import type { NewRecord } from '../index/record-index.ts';
import type { PackWriter } from '../pack/pack-writer.ts';
import { orUnread } from '../storage/files.ts';
import type { StoredFile } from '../storage/store.ts';

/** Records that lie side by side are read together, up to this. */
const READ_BYTES = 1024 * 1024;

type Run = { offset: number; lengthBytes: number; records: PackRecord[] };

const lengthOf = ({ header }: PackRecord): number => RECORD_HEADER_BYTES + header.storedLength;

/**
 * Where each is now, by its offset in `pack`; durable when the writer is. Null when the medium does not give one of them:
 * which, it does not say. DAMAGED_BLOCK naming one that is not sound.
 */
export async function copyRecords(
  from: { pack: string; file: StoredFile },
  records: readonly PackRecord[],
  writer: PackWriter,
): Promise<Map<number, NewRecord> | null> {
  const copies = new Map<number, NewRecord>();
  for (const run of runsOf(records)) {
    const bytes = takeMemory(run.lengthBytes);
    const got = await orUnread(() => from.file.read(bytes, run.offset));
    if (got === null) return null;
    for (const record of run.records) {
      const at = record.offset - run.offset;
      const stored = bytes.subarray(at, Math.min(got, at + lengthOf(record)));
      copies.set(record.offset, append(writer, from.pack, record, stored));
    }
    releaseMemory(bytes);
  }
  return copies;
}

function runsOf(records: readonly PackRecord[]): Run[] {
  const runs: Run[] = [];
  for (const record of [...records].sort((a, b) => a.offset - b.offset)) {
    const last = runs.at(-1);
    const isNext = last !== undefined && last.offset + last.lengthBytes === record.offset;
    if (isNext && last.lengthBytes + lengthOf(record) <= READ_BYTES) {
      last.records.push(record);
      last.lengthBytes += lengthOf(record);
    } else runs.push({ offset: record.offset, lengthBytes: lengthOf(record), records: [record] });
  }
  return runs;
}

function append(writer: PackWriter, pack: string, record: PackRecord, stored: Buffer): NewRecord {
  const header = stored.subarray(0, RECORD_HEADER_BYTES);
  const payload = stored.subarray(RECORD_HEADER_BYTES);
  const { id, kind, codec, rawLength, storedLength, restorePointId, payloadSum } = record.header;
  const found = decodeRecordHeader(header);
  const same = found !== null && Buffer.compare(found.id, id) === 0 && found.storedLength === storedLength;
  if (!same || payload.length !== storedLength || sumOf(payload).compare(payloadSum) !== 0)
    throw recordError(
      'DAMAGED_BLOCK',
      id,
      { pack, offset: record.offset },
      'it is damaged, so its pack stays as it is',
    );
  if (kind === 'fill') throw new TidemarkError('BUG', `a fill record of pack ${pack} is to be copied`);
  const offset = writer.append(header, payload);
  const place = { pack: writer.packId, offset, storedLength, rawLength, codec };
  return { id, kind, place, writer: restorePointId };
}
