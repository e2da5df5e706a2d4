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
    for (const [offset, copy] of copyRun(writer, from.pack, run, bytes.subarray(0, got))) copies.set(offset, copy);
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

/** All of them are checked before one is written, and written as one: blocks may be small, and many. */
function copyRun(writer: PackWriter, pack: string, { offset, records }: Run, bytes: Buffer): [number, NewRecord][] {
  for (const record of records) checkCopy(pack, record, storedOf(record, offset, bytes));
  const first = writer.appendAll(
    bytes,
    records.map((record) => record.offset - offset),
  );
  return records.map((record) => {
    const { id, kind, codec, rawLength, storedLength, restorePointId } = record.header;
    if (kind === 'fill') throw new TidemarkError('BUG', `a fill record of pack ${pack} was to be copied`);
    const place = { pack: writer.packId, offset: first + record.offset - offset, storedLength, rawLength, codec };
    return [record.offset, { id, kind, place, writer: restorePointId }];
  });
}

/** As far as the file has it. */
const storedOf = (record: PackRecord, runOffset: number, bytes: Buffer): Buffer =>
  bytes.subarray(record.offset - runOffset, record.offset - runOffset + lengthOf(record));

function checkCopy(pack: string, { header, offset }: PackRecord, stored: Buffer): void {
  const payload = stored.subarray(RECORD_HEADER_BYTES);
  const { id, storedLength, payloadSum } = header;
  const found = decodeRecordHeader(stored.subarray(0, RECORD_HEADER_BYTES));
  const same = found !== null && Buffer.compare(found.id, id) === 0 && found.storedLength === storedLength;
  if (!same || payload.length !== storedLength || sumOf(payload).compare(payloadSum) !== 0)
    throw recordError('DAMAGED_BLOCK', id, { pack, offset }, 'it is damaged, so its pack stays as it is');
}
