/** Records of a pack in the order of the file, read in long runs, the next one while the last is looked at. */
import { releaseMemory, takeMemory } from '../../../schema/domain/memory.ts';
import { RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import type { PackRecord } from '../../../schema/repository/pack.ts';
import { readAt } from '../pack/scan-pack.ts';
import { orUnread } from '../storage/files.ts';
import type { StoredFile } from '../storage/store.ts';

const RUN_BYTES = 4 * 1024 * 1024;

type Run = { offset: number; lengthBytes: number; records: PackRecord[] };
/** `stored`: header and payload as far as the file has them, valid until the next is asked for; null: not to be read. */
export type ReadRecord = { record: PackRecord; stored: Buffer | null };

const endOf = ({ header, offset }: PackRecord): number => offset + RECORD_HEADER_BYTES + header.storedLength;

/** `records`: by offset. Errors but those of damage as they come. */
export async function* readRuns(file: StoredFile, records: readonly PackRecord[]): AsyncGenerator<ReadRecord, void> {
  const runs = runsOf(records);
  const buffers = [0, 1].map(() => takeMemory(Math.max(0, ...runs.map((run) => run.lengthBytes))));
  const begin = (at: number): Promise<Buffer | null> => {
    const run = runs[at];
    const reading = run ? readRun(file, run, buffers[at % 2]!) : Promise.resolve(null);
    reading.catch(() => undefined);
    return reading;
  };
  let reading = begin(0);
  try {
    for (const [at, run] of runs.entries()) {
      const bytes = await reading;
      reading = begin(at + 1);
      for (const record of run.records) yield { record, stored: await storedOf(file, record, run, bytes) };
    }
  } finally {
    // Whoever leaves early closes the file.
    await reading.catch(() => undefined);
    for (const buffer of buffers) releaseMemory(buffer);
  }
}

/** Null when the medium does not give all of it. */
const readRun = (file: StoredFile, { offset, lengthBytes }: Run, into: Buffer): Promise<Buffer | null> =>
  orUnread(async () => into.subarray(0, await file.read(into.subarray(0, lengthBytes), offset)));

async function storedOf(file: StoredFile, record: PackRecord, run: Run, bytes: Buffer | null): Promise<Buffer | null> {
  if (bytes) return bytes.subarray(record.offset - run.offset, endOf(record) - run.offset);
  return orUnread(() => readAt(file, record.offset, endOf(record) - record.offset));
}

function runsOf(records: readonly PackRecord[]): Run[] {
  const runs: Run[] = [];
  for (const record of records) {
    const run = runs.at(-1);
    if (run && endOf(record) - run.offset <= RUN_BYTES) {
      run.records.push(record);
      run.lengthBytes = Math.max(run.lengthBytes, endOf(record) - run.offset);
    } else runs.push({ offset: record.offset, lengthBytes: endOf(record) - record.offset, records: [record] });
  }
  return runs;
}
