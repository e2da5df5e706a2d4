/**
 * The ledger of an open restore point: frames appended in groups, one write and one sync per group; what arrives while
 * a group is synced makes the next. After a failed sync it takes nothing more until the repository is opened again.
 */
import { open, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { createStreamDigest } from '../../../schema/repository/digest.ts';
import { decodeLedgerHeader, decodeLedgerRecord, type LedgerRecord } from '../../../schema/repository/ledger.ts';
import { LEDGER_HEADER_BYTES, MAX_LEDGER_BODY_BYTES } from '../../../schema/repository/limits.ts';
import { readFully } from '../pack/record-source.ts';
import { cutBackSync, storageError, syncFolder } from '../storage/files.ts';

const GROUP_BYTES = 1024 * 1024;

export type LedgerFile = {
  /** Resolves when the frame is durable; `onDurable` gets its offset just before, in order of appending. */
  append(frame: Buffer, onDurable: (offset: number) => void): Promise<void>;
  /** Resolves when nothing is under way. */
  idle(): Promise<void>;
  read(offset: number): Promise<LedgerRecord>;
  /** Hex digest of the file. */
  digest(): Promise<string>;
  close(): Promise<void>;
};

type Waiting = { frame: Buffer; onDurable(offset: number): void; resolve(): void; reject(error: unknown): void };

/** Opens or makes it; tells each sound frame that is there, in order, and cuts a torn tail. */
export async function openLedgerFile(
  path: string,
  onRecord: (record: LedgerRecord, offset: number) => void,
): Promise<LedgerFile> {
  try {
    const handle = await open(path, 'a+');
    const lengthBytes = await scanFrames(handle, path, onRecord);
    await handle.truncate(lengthBytes);
    await handle.sync();
    await syncFolder(dirname(path));
    return createLedger(handle, path, lengthBytes);
  } catch (error) {
    throw storageError(error, path);
  }
}

async function readFrame(handle: FileHandle, path: string, offset: number): Promise<Buffer | null> {
  const frame = Buffer.alloc(LEDGER_HEADER_BYTES + MAX_LEDGER_BODY_BYTES);
  const got = await readFully(handle, frame, offset, path);
  const header = decodeLedgerHeader(frame.subarray(0, got));
  if (!header || LEDGER_HEADER_BYTES + header.bodyBytes > got) return null;
  return frame.subarray(0, LEDGER_HEADER_BYTES + header.bodyBytes);
}

async function scanFrames(
  handle: FileHandle,
  path: string,
  onRecord: (record: LedgerRecord, offset: number) => void,
): Promise<number> {
  let offset = 0;
  for (;;) {
    const frame = await readFrame(handle, path, offset);
    const record = frame ? decodeLedgerRecord(frame) : null;
    if (!frame || !record) return offset;
    onRecord(record, offset);
    offset += frame.length;
  }
}

type Appender = Pick<LedgerFile, 'append' | 'idle'> & { lengthBytes(): number };

function createAppender(handle: FileHandle, path: string, initialBytes: number): Appender {
  let lengthBytes = initialBytes;
  let queue: Waiting[] = [];
  let isFlushing = false;
  let last: Promise<void> = Promise.resolve();
  let broken: unknown = null;

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

  async function writeGroup(group: readonly Waiting[]): Promise<void> {
    if (broken !== null) throw new TidemarkError('STORAGE_ERROR', `ledger ${path} was abandoned`, { path }, broken);
    try {
      await handle.appendFile(Buffer.concat(group.map((one) => one.frame)));
    } catch (error) {
      if (!cutBackSync(handle.fd, lengthBytes)) broken = error;
      throw storageError(error, path);
    }
    await handle.datasync().catch((error: unknown) => {
      broken = error;
      throw storageError(error, path);
    });
  }

  async function flushGroup(group: readonly Waiting[]): Promise<void> {
    try {
      await writeGroup(group);
    } catch (error) {
      for (const one of group) one.reject(error);
      return;
    }
    for (const one of group) {
      one.onDurable(lengthBytes);
      lengthBytes += one.frame.length;
      one.resolve();
    }
  }

  async function flushAll(): Promise<void> {
    isFlushing = true;
    while (queue.length > 0) await flushGroup(takeGroup());
    isFlushing = false;
  }

  return {
    lengthBytes: () => lengthBytes,
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

function createLedger(handle: FileHandle, path: string, initialBytes: number): LedgerFile {
  const appender = createAppender(handle, path, initialBytes);
  return {
    append: appender.append,
    idle: appender.idle,
    read: async (offset) => {
      const frame = await readFrame(handle, path, offset);
      const record = frame ? decodeLedgerRecord(frame) : null;
      if (!record)
        throw new TidemarkError('REPOSITORY_CORRUPT', `ledger ${path} is damaged at ${offset}`, { path, offset });
      return record;
    },
    digest: () => digestOfFile(handle, path, appender.lengthBytes()),
    close: async () => {
      await appender.idle();
      await handle.close();
    },
  };
}

async function digestOfFile(handle: FileHandle, path: string, lengthBytes: number): Promise<string> {
  const digest = createStreamDigest();
  const piece = Buffer.alloc(GROUP_BYTES);
  let at = 0;
  while (at < lengthBytes) {
    const got = await readFully(handle, piece.subarray(0, Math.min(GROUP_BYTES, lengthBytes - at)), at, path);
    if (got === 0) throw new TidemarkError('REPOSITORY_CORRUPT', `ledger ${path} was cut`, { path });
    digest.update(piece.subarray(0, got));
    at += got;
  }
  return digest.hex();
}
