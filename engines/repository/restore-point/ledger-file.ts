/**
 * The ledger of an open restore point: frames appended in groups, one write and one sync per group; what arrives while
 * a group is synced makes the next. After a failed sync it takes nothing more until the repository is opened again.
 */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { createStreamDigest } from '../../../schema/repository/digest.ts';
import { decodeLedgerHeader, decodeLedgerRecord, type LedgerRecord } from '../../../schema/repository/ledger.ts';
import { LEDGER_HEADER_BYTES, MAX_LEDGER_BODY_BYTES } from '../../../schema/repository/limits.ts';
import type { Staging, StagingFile } from '../storage/staging.ts';

const GROUP_BYTES = 1024 * 1024;

export type LedgerFile = {
  /** Resolves when the frame is durable; `onDurable` gets its offset just before, in order of appending. */
  append(frame: Buffer, onDurable: (offset: number) => void): Promise<void>;
  /** Resolves when nothing is under way. */
  idle(): Promise<void>;
  read(offset: number): Promise<LedgerRecord>;
  /** Hex digest of the file. */
  digest(): Promise<string>;
  /** Gives its room back: nothing in it is needed any more. While nothing is under way. */
  empty(): Promise<void>;
  close(): Promise<void>;
};

type Waiting = { frame: Buffer; onDurable(offset: number): void; resolve(): void; reject(error: unknown): void };

/** Opens or makes it; tells each sound frame that is there, in order, and cuts a torn tail. */
export async function openLedgerFile(
  staging: Staging,
  name: string,
  onRecord: (record: LedgerRecord, offset: number) => void,
): Promise<LedgerFile> {
  const file = await staging.openFile(name);
  try {
    await file.cutBack(await scanFrames(file, onRecord));
    await file.sync();
  } catch (error) {
    file.close();
    throw error;
  }
  return createLedger(file, staging.locate(name));
}

async function readFrame(file: StagingFile, offset: number): Promise<Buffer | null> {
  const frame = Buffer.alloc(LEDGER_HEADER_BYTES + MAX_LEDGER_BODY_BYTES);
  const got = await file.read(frame, offset);
  const header = decodeLedgerHeader(frame.subarray(0, got));
  if (!header || LEDGER_HEADER_BYTES + header.bodyBytes > got) return null;
  return frame.subarray(0, LEDGER_HEADER_BYTES + header.bodyBytes);
}

async function scanFrames(
  file: StagingFile,
  onRecord: (record: LedgerRecord, offset: number) => void,
): Promise<number> {
  let offset = 0;
  for (;;) {
    const frame = await readFrame(file, offset);
    const record = frame ? decodeLedgerRecord(frame) : null;
    if (!frame || !record) return offset;
    onRecord(record, offset);
    offset += frame.length;
  }
}

function createAppender(file: StagingFile): Pick<LedgerFile, 'append' | 'idle'> {
  let queue: Waiting[] = [];
  let isFlushing = false;
  let last: Promise<void> = Promise.resolve();

  function takeGroup(): Waiting[] {
    let bytes = 0;
    let count = 0;
    while (count < queue.length && (count === 0 || bytes + queue[count]!.frame.length <= GROUP_BYTES)) {
      bytes += queue[count]!.frame.length;
      count += 1;
    }
    const group = queue.slice(0, count);
    queue = queue.slice(count);
    return group;
  }

  async function flushGroup(group: readonly Waiting[]): Promise<void> {
    let offset: number;
    try {
      offset = await file.append(Buffer.concat(group.map((one) => one.frame)));
      await file.sync();
    } catch (error) {
      for (const one of group) one.reject(error);
      return;
    }
    for (const one of group) {
      one.onDurable(offset);
      offset += one.frame.length;
      one.resolve();
    }
  }

  async function flushAll(): Promise<void> {
    isFlushing = true;
    while (queue.length > 0) await flushGroup(takeGroup());
    isFlushing = false;
  }

  return {
    append: (frame, onDurable) => {
      const appended = new Promise<void>((resolve, reject) => {
        queue.push({ frame, onDurable, resolve, reject });
        if (!isFlushing) void flushAll();
      });
      last = appended.catch(() => undefined);
      return appended;
    },
    // Only for what is under way: others may go on appending for hours.
    idle: () => last,
  };
}

function createLedger(file: StagingFile, path: string): LedgerFile {
  const appender = createAppender(file);
  return {
    append: appender.append,
    idle: appender.idle,
    read: async (offset) => {
      const frame = await readFrame(file, offset);
      const record = frame ? decodeLedgerRecord(frame) : null;
      if (!record)
        throw new TidemarkError('REPOSITORY_CORRUPT', `ledger ${path} is damaged at ${offset}`, { path, offset });
      return record;
    },
    digest: () => digestOfFile(file, path),
    empty: () => file.cutBack(0),
    close: async () => {
      await appender.idle();
      file.close();
    },
  };
}

async function digestOfFile(file: StagingFile, path: string): Promise<string> {
  const digest = createStreamDigest();
  const lengthBytes = file.lengthBytes();
  const piece = Buffer.alloc(GROUP_BYTES);
  let at = 0;
  while (at < lengthBytes) {
    const got = await file.read(piece.subarray(0, Math.min(GROUP_BYTES, lengthBytes - at)), at);
    if (got === 0) throw new TidemarkError('REPOSITORY_CORRUPT', `ledger ${path} was cut`, { path });
    digest.update(piece.subarray(0, got));
    at += got;
  }
  return digest.hex();
}
