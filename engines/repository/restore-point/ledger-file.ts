/**
 * The ledger of an open restore point: frames appended in groups, one write and one sync per group; what arrives while
 * a group is synced makes the next. After a failed sync it takes nothing more until the repository is opened again.
 */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import { createStreamDigest } from '../../../schema/repository/digest.ts';
import { decodeLedgerRecord, type LedgerRecord } from '../../../schema/repository/ledger.ts';
import type { FrameVault } from '../../../schema/repository/sealed-frame.ts';
import type { Staging, StagingFile } from '../storage/staging.ts';

const GROUP_BYTES = 1024 * 1024;
/** Of what lies before a frame, as much as it is bound to. */
const BEFORE_BYTES = 16;

/** `ledger`: the restore point it is of. */
export type LedgerPlace = { staging: Staging; name: string; vault: FrameVault; ledger: RestorePointId };
type Opened = { file: StagingFile; vault: FrameVault; ledger: RestorePointId };

export type LedgerFile = {
  /** `frame`: in the clear. Resolves when it is durable; `onDurable` gets its offset just before, in order of appending. */
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

/** Opens or makes it; tells each sound frame that is there, in order, and cuts a torn tail. TAMPERED. */
export async function openLedgerFile(
  { staging, name, vault, ledger }: LedgerPlace,
  onRecord: (record: LedgerRecord, offset: number) => void,
): Promise<LedgerFile> {
  const file = await staging.openFile(name);
  const opened = { file, vault, ledger };
  try {
    const { endBytes, tail } = await scanFrames(opened, onRecord);
    await file.cutBack(endBytes);
    await file.sync();
    return createLedger(opened, staging.locate(name), tail);
  } catch (error) {
    file.close();
    throw error;
  }
}

/** Null where none begins, or where it is torn or damaged. `tail`: its last bytes in the file. */
async function readFrame(
  { file, vault, ledger }: Opened,
  offset: number,
): Promise<{ record: LedgerRecord; lengthBytes: number; tail: Buffer } | null> {
  const beforeBytes = Math.min(BEFORE_BYTES, offset);
  const bytes = Buffer.alloc(beforeBytes + vault.maxFrameBytes);
  const got = await file.read(bytes, offset - beforeBytes);
  const rest = bytes.subarray(beforeBytes, Math.max(beforeBytes, got));
  const lengthBytes = vault.frameLengthOf(rest);
  if (lengthBytes === null || lengthBytes > rest.length) return null;
  const sealed = rest.subarray(0, lengthBytes);
  const frame = vault.openFrame({ ledger, before: bytes.subarray(0, beforeBytes) }, sealed);
  const record = frame && decodeLedgerRecord(frame);
  return record && { record, lengthBytes, tail: tailOf(sealed) };
}

/** A copy: what it is the end of may be large. */
const tailOf = (bytes: Uint8Array): Buffer => Buffer.from(bytes.subarray(-BEFORE_BYTES));

async function scanFrames(
  opened: Opened,
  onRecord: (record: LedgerRecord, offset: number) => void,
): Promise<{ endBytes: number; tail: Buffer }> {
  let endBytes = 0;
  let tail: Buffer = Buffer.alloc(0);
  for (;;) {
    const found = await readFrame(opened, endBytes);
    if (!found) return { endBytes, tail };
    onRecord(found.record, endBytes);
    endBytes += found.lengthBytes;
    tail = found.tail;
  }
}

/** `end`: the last bytes of the file. */
function createAppender(
  { file, vault, ledger }: Opened,
  end: Uint8Array,
): Pick<LedgerFile, 'append' | 'idle' | 'empty'> {
  let tail = end;
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

  /** Only now is it known what lies before each: of a group that failed nothing is left in the file. */
  function sealGroup(group: readonly Waiting[]): Uint8Array[] {
    let before = tail;
    return group.map(({ frame }) => {
      const sealed = vault.sealFrame({ ledger, before }, frame);
      before = tailOf(sealed);
      return sealed;
    });
  }

  async function flushGroup(group: readonly Waiting[]): Promise<void> {
    let frames: Uint8Array[];
    let offset: number;
    try {
      frames = sealGroup(group);
      offset = await file.append(Buffer.concat(frames));
      await file.sync();
    } catch (error) {
      for (const one of group) one.reject(error);
      return;
    }
    tail = tailOf(frames.at(-1)!);
    for (const [at, one] of group.entries()) {
      one.onDurable(offset);
      offset += frames[at]!.length;
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
    empty: async () => {
      await file.cutBack(0);
      tail = Buffer.alloc(0);
    },
  };
}

function createLedger(opened: Opened, path: string, tail: Uint8Array): LedgerFile {
  const { file } = opened;
  const appender = createAppender(opened, tail);
  return {
    ...appender,
    read: async (offset) => {
      const found = await readFrame(opened, offset);
      if (!found)
        throw new TidemarkError('REPOSITORY_CORRUPT', `ledger ${path} is damaged at ${offset}`, { path, offset });
      return found.record;
    },
    digest: () => digestOfFile(file, path),
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
