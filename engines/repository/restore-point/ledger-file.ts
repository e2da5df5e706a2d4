/**
 * The ledger of an open restore point: frames appended in groups, one write and one sync per group; what arrives while
 * a group is synced makes the next. After a failed sync the file is opened anew before the next group: as a restart would
 * find it, with what was durable and nothing else.
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
type File = { file: StagingFile; vault: FrameVault; ledger: RestorePointId };
/** Where its durable frames end, and the last bytes before that. */
type End = { endBytes: number; tail: Uint8Array };
/** `file` becomes another one when it is opened anew; `reading`: what is read from it just now. */
type Opened = File & End & { reading: Set<Promise<unknown>> };

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

export type LedgerHooks = {
  /** Each sound frame that is there when it is opened, in order. */
  onRecord: (record: LedgerRecord, offset: number) => void;
  /** Frames from `offset` on were durable and are not there any more: found when the file was opened anew. */
  onLost: (offset: number) => void;
};

/** Opens or makes it, and cuts a torn tail. TAMPERED. */
export async function openLedgerFile(place: LedgerPlace, hooks: LedgerHooks): Promise<LedgerFile> {
  const opened = await openWhole(place, Infinity, hooks.onRecord);
  return createLedger({ ...opened, reading: new Set() }, place, hooks);
}

/** With what is sound up to `limitBytes`; the rest is cut off, durably. */
async function openWhole(
  { staging, name, vault, ledger }: LedgerPlace,
  limitBytes: number,
  onRecord: LedgerHooks['onRecord'],
): Promise<File & End> {
  const file = await staging.openFile(name);
  const of = { file, vault, ledger };
  try {
    const end = await scanFrames(of, limitBytes, onRecord);
    await file.cutBack(end.endBytes);
    await file.sync();
    return { ...of, ...end };
  } catch (error) {
    file.close();
    throw error;
  }
}

/** Null where none begins, or where it is torn or damaged. `tail`: its last bytes in the file. */
async function readFrame(
  { file, vault, ledger }: File,
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

async function scanFrames(of: File, limitBytes: number, onRecord: LedgerHooks['onRecord']): Promise<End> {
  let endBytes = 0;
  let tail: Buffer = Buffer.alloc(0);
  for (;;) {
    const found = endBytes < limitBytes ? await readFrame(of, endBytes) : null;
    if (!found) return { endBytes, tail };
    onRecord(found.record, endBytes);
    endBytes += found.lengthBytes;
    tail = found.tail;
  }
}

/** `reopen`: for a file that takes nothing more. */
function createAppender(opened: Opened, reopen: () => Promise<void>): Pick<LedgerFile, 'append' | 'idle' | 'empty'> {
  const { vault, ledger } = opened;
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
    let before = opened.tail;
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
      if (opened.file.isBroken()) await reopen();
      frames = sealGroup(group);
      offset = await opened.file.append(Buffer.concat(frames));
      await opened.file.sync();
    } catch (error) {
      for (const one of group) one.reject(error);
      return;
    }
    opened.tail = tailOf(frames.at(-1)!);
    opened.endBytes = opened.file.lengthBytes();
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
      await opened.file.cutBack(0);
      Object.assign(opened, { endBytes: 0, tail: Buffer.alloc(0) } satisfies End);
    },
  };
}

function createLedger(opened: Opened, place: LedgerPlace, hooks: LedgerHooks): LedgerFile {
  const path = place.staging.locate(place.name);
  const appender = createAppender(opened, () => reopen(opened, place, hooks));
  return {
    ...appender,
    read: async (offset) => {
      const found = await whileReading(opened, () => readFrame(opened, offset));
      if (!found)
        throw new TidemarkError('REPOSITORY_CORRUPT', `ledger ${path} is damaged at ${offset}`, { path, offset });
      return found.record;
    },
    digest: () => whileReading(opened, () => digestOfFile(opened, path)),
    close: async () => {
      await appender.idle();
      opened.file.close();
    },
  };
}

/** The file is not closed meanwhile. */
async function whileReading<T>({ reading }: Opened, read: () => Promise<T>): Promise<T> {
  const result = read();
  reading.add(result);
  try {
    return await result;
  } finally {
    reading.delete(result);
  }
}

/** Whatever follows the durable frames was told to nobody, and nobody knows what of it is on the medium. */
async function reopen(opened: Opened, place: LedgerPlace, { onLost }: LedgerHooks): Promise<void> {
  const { file: broken, endBytes, reading } = opened;
  Object.assign(opened, await openWhole(place, endBytes, () => undefined));
  if (opened.endBytes < endBytes) onLost(opened.endBytes);
  void Promise.allSettled(reading).then(() => broken.close());
}

async function digestOfFile({ file, endBytes }: Opened, path: string): Promise<string> {
  const digest = createStreamDigest();
  const piece = Buffer.alloc(GROUP_BYTES);
  let at = 0;
  while (at < endBytes) {
    const got = await file.read(piece.subarray(0, Math.min(GROUP_BYTES, endBytes - at)), at);
    if (got === 0) throw new TidemarkError('REPOSITORY_CORRUPT', `ledger ${path} was cut`, { path });
    digest.update(piece.subarray(0, got));
    at += got;
  }
  return digest.hex();
}
