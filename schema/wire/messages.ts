/** What frames say, as types, and their heads in bytes (PROTOCOL.md). Payloads stay beside: they are never copied here. */
import { isErrorCode, type ErrorCode } from '../domain/errors.ts';
import { restorePointId, runKey, diskKey, type DiskKey, type RestorePointId, type RunKey } from '../domain/ids.ts';
import { WINDOW_BYTES } from '../domain/extents.ts';
import type { AuditClass, OfferAnswer, SourceClass } from '../domain/seams.ts';
import { blockSizes, type Codec } from '../domain/states.ts';
import { FieldReader, FieldWriter } from './fields.ts';
import {
  encodeFrame,
  type Frame,
  frameTypes,
  type FrameType,
  MAX_ABOVE_WINDOWS,
  MAX_PAYLOAD_BYTES,
  refuse,
} from './frame.ts';

/** What this build speaks, from the lowest to the highest. */
export const protocolVersions = { lowestVersion: 1, highestVersion: 1 } as const;

/** The highest that both ends speak. Throws PROTOCOL_ERROR that names the versions of both. */
export function chooseVersion(
  theirs: Pick<Hello, 'lowestVersion' | 'highestVersion'>,
  field = 'HELLO versions',
): number {
  const { lowestVersion, highestVersion } = protocolVersions;
  const version = Math.min(highestVersion, theirs.highestVersion);
  if (version >= Math.max(lowestVersion, theirs.lowestVersion)) return version;
  throw refuse(field, rangeOf(theirs), rangeOf(protocolVersions));
}

const rangeOf = ({ lowestVersion, highestVersion }: Pick<Hello, 'lowestVersion' | 'highestVersion'>): string =>
  lowestVersion === highestVersion ? String(lowestVersion) : `${lowestVersion} to ${highestVersion}`;

/** Blocks of one AUDIT_SAMPLE. */
export const MAX_AUDIT_BLOCKS = 256;
export const MIN_CREDIT_BYTES = MAX_PAYLOAD_BYTES;
export const MAX_CREDIT_BYTES = 64 * 1024 * 1024;
const MAX_DISK_BYTES = 2 ** 50;
const TOKEN_BYTES = 32;
const MAX_WINDOW_BLOCKS = WINDOW_BYTES / blockSizes[0];

export type Purpose = 'backup' | 'restore' | 'rehearsal';
export type WireAnswer = OfferAnswer | 'none';
export type WantReason = 'damaged' | 'not-pending';
const purposes = [null, 'backup', 'restore', 'rehearsal'] as const;
const codecNames = ['none', 'lz4', 'zstd'] as const;
const classNames = ['not-read', 'unallocated', 'zero', 'data'] as const;
const answerNames = ['none', 'want', 'have', 'pending', 'unchanged'] as const;
const wantReasons = [null, 'damaged', 'not-pending'] as const;
const auditClasses = ['changed', 'zero', 'data'] as const satisfies readonly AuditClass[];

export type Hello = {
  type: 'hello';
  lowestVersion: number;
  highestVersion: number;
  purpose: Purpose;
  /** What the target has granted, hex of 32 bytes; a Unix socket needs none. */
  token?: string;
  restorePointId: RestorePointId;
  run: RunKey;
  /** Of a restore: when the token ends, in seconds since the epoch. */
  fence: number;
  sizeBytes: number;
  blockSize: number;
  creditBytes: number;
  diskKey: DiskKey;
  software: string;
};
export type Welcome = {
  type: 'welcome';
  version: number;
  laneCount: number;
  creditBytes: number;
  sizeBytes: number;
  blockSize: number;
  windowCount: number;
  lowWater: number;
  /** Change tracking has to be audited before the first window. */
  auditDue: boolean;
  above: number[];
};
export type Offer = { type: 'offer'; window: number; firstBlock: number; classes: SourceClass[]; digests: Uint8Array };
export type Answer = { type: 'answer'; window: number; firstBlock: number; answers: WireAnswer[] };
export type BlockHead = { window: number; block: number; codec: Codec; rawLength: number };
export type WindowEnd = {
  type: 'windowEnd';
  window: number;
  sums: { notReadBytes: number; unallocatedBytes: number; zeroBytes: number; dataBytes: number };
};
/** `blocks`: indices in the disk; none: the audit is over, and found nothing. */
export type AuditSample = { type: 'auditSample'; audited: number; wanted: number; blocks: number[] };
/** Of the blocks of the last sample, in order; 32 bytes of digest for each of class data. */
export type AuditAnswer = { type: 'auditAnswer'; classes: AuditClass[]; digests: Uint8Array };
/** `digest`: 32 bytes, of the entries that the window's blocks have in a map, one behind the other. */
export type WindowDigest = { type: 'windowDigest'; window: number; digest: Uint8Array; sums: WindowEnd['sums'] };
export type Message =
  | Hello
  | Welcome
  | { type: 'error'; code: ErrorCode; message: string }
  | { type: 'bye' }
  | { type: 'goTo'; path: string }
  | Offer
  | Answer
  | ({ type: 'data' } & BlockHead)
  | { type: 'want'; window: number; block: number; reason: WantReason; attempt: number }
  | { type: 'credit'; bytes: number }
  | WindowEnd
  | { type: 'ack'; firstWindow: number; count: number; busyMs: number }
  | { type: 'rate'; bytesPerSecond: number; limit: string }
  | { type: 'untouched'; firstWindow: number; count: number }
  | { type: 'get'; window: number }
  | { type: 'entries'; window: number; digests: Uint8Array }
  | ({ type: 'block' } & BlockHead)
  | { type: 'windowDone'; window: number; busyMs: number; heldMs: number }
  | { type: 'audit'; changedBytes: number }
  | AuditSample
  | AuditAnswer
  | WindowDigest
  | { type: 'windowDiffers'; window: number };

const code = <T extends string>(names: readonly (T | null)[], name: T): number => names.indexOf(name);
const writer = (): FieldWriter => new FieldWriter();

function helloHead(m: Hello): FieldWriter {
  return writer()
    .u16(m.lowestVersion)
    .u16(m.highestVersion)
    .u8(code(purposes, m.purpose))
    .u8(m.token === undefined ? 0 : 1)
    .zeros(2)
    .bytes(m.token === undefined ? Buffer.alloc(TOKEN_BYTES) : Buffer.from(m.token, 'hex'))
    .bytes(Buffer.from(m.restorePointId, 'hex'))
    .bytes(Buffer.from(m.run, 'latin1'))
    .u64(m.fence)
    .u64(m.sizeBytes)
    .u32(m.blockSize)
    .u32(m.creditBytes)
    .zeros(16)
    .text(m.diskKey)
    .text(m.software);
}

function welcomeHead(m: Welcome): FieldWriter {
  const above = m.above.slice(0, MAX_ABOVE_WINDOWS);
  const head = writer().u16(m.version).u16(m.laneCount).u32(m.creditBytes).u64(m.sizeBytes).u32(m.blockSize);
  head
    .u32(m.windowCount)
    .u32(m.lowWater)
    .u8(m.auditDue ? 1 : 0)
    .zeros(15)
    .u32(above.length);
  for (const window of above) head.u32(window);
  return head;
}

function errorHead(m: Extract<Message, { type: 'error' }>): FieldWriter {
  const message = Buffer.from(m.message)
    .subarray(0, 4096)
    .toString('utf8')
    .replace(/\uFFFD$/, '');
  const head = writer().text(m.code).text(message);
  return head.zeros(Math.max(0, 8 - head.done().length));
}

const blockHead = (m: BlockHead): FieldWriter =>
  writer().u32(m.window).u16(m.block).u8(code(codecNames, m.codec)).u8(0).u32(m.rawLength).zeros(4);

function offerHead(m: Offer): FieldWriter {
  const classes = Buffer.from(m.classes.map((name) => code(classNames, name)));
  return writer().u32(m.window).u16(m.firstBlock).u16(classes.length).bytes(classes).bytes(m.digests);
}

function answerHead(m: Answer): FieldWriter {
  const answers = Buffer.from(m.answers.map((name) => code(answerNames, name)));
  return writer().u32(m.window).u16(m.firstBlock).u16(answers.length).bytes(answers);
}

const sumsTo = (head: FieldWriter, sums: WindowEnd['sums']): FieldWriter =>
  head.u64(sums.notReadBytes).u64(sums.unallocatedBytes).u64(sums.zeroBytes).u64(sums.dataBytes);

const windowEndHead = ({ window, sums }: WindowEnd): FieldWriter => sumsTo(writer().u32(window).zeros(4), sums);

function auditSampleHead(m: AuditSample): FieldWriter {
  const head = writer().u32(m.audited).u32(m.wanted).u16(m.blocks.length).zeros(2);
  for (const block of m.blocks) head.u32(block);
  return head;
}

const auditAnswerHead = (m: AuditAnswer): FieldWriter =>
  writer()
    .u16(m.classes.length)
    .zeros(2)
    .bytes(Buffer.from(m.classes.map((name) => code(auditClasses, name))))
    .bytes(m.digests);

function headOf(m: Message): FieldWriter {
  if (m.type === 'hello') return helloHead(m);
  if (m.type === 'welcome') return welcomeHead(m);
  if (m.type === 'error') return errorHead(m);
  if (m.type === 'offer') return offerHead(m);
  if (m.type === 'answer') return answerHead(m);
  if (m.type === 'windowEnd') return windowEndHead(m);
  if (m.type === 'data' || m.type === 'block') return blockHead(m);
  if (m.type === 'bye') return writer();
  if (m.type === 'goTo') return writer().text(m.path).zeros(1);
  if (m.type === 'want') return writer().u32(m.window).u16(m.block).u8(code(wantReasons, m.reason)).u8(m.attempt);
  if (m.type === 'credit') return writer().u32(m.bytes);
  if (m.type === 'ack') return writer().u32(m.firstWindow).u32(m.count).u32(m.busyMs).zeros(4);
  if (m.type === 'rate') return writer().u64(m.bytesPerSecond).text(m.limit);
  if (m.type === 'untouched') return writer().u32(m.firstWindow).u32(m.count);
  if (m.type === 'windowDone') return writer().u32(m.window).u32(m.busyMs).u32(m.heldMs).zeros(4);
  if (m.type === 'get' || m.type === 'windowDiffers') return writer().u32(m.window);
  if (m.type === 'windowDigest') return sumsTo(writer().u32(m.window).zeros(4).bytes(m.digest), m.sums);
  if (m.type === 'audit') return writer().u64(m.changedBytes);
  if (m.type === 'auditSample') return auditSampleHead(m);
  if (m.type === 'auditAnswer') return auditAnswerHead(m);
  return writer()
    .u32(m.window)
    .u16(m.digests.length / 32)
    .zeros(2)
    .bytes(m.digests);
}

/** Frame header and head of a message; a payload of `payloadLength` bytes is to follow. */
export const encodeMessage = (message: Message, payloadLength = 0): Buffer =>
  encodeFrame(message.type, headOf(message).done(), payloadLength);

function readHello(r: FieldReader): Hello {
  const lowestVersion = r.u16('lowest version');
  const highestVersion = r.u16('highest version', lowestVersion);
  const purpose = r.one('purpose', purposes);
  const hasToken = r.u8('authentication', 0, 1) === 1;
  r.u8('encryption', 0, 0);
  r.zeros('reserved', 1);
  const token = hasToken ? r.bytes('token', TOKEN_BYTES).toString('hex') : null;
  if (token === null) r.zeros('token', TOKEN_BYTES);
  const restorePoint = restorePointId(r.bytes('restore point', 16).toString('hex'));
  const run = runKey(r.matching('run key', r.bytes('run key', 12).toString('latin1'), /^[a-z0-9]{12}$/));
  const fence = r.u64('fence');
  const sizeBytes = r.u64('size', purpose === 'backup' ? MAX_DISK_BYTES : 0);
  const blockSize = r.u32('block size');
  const sizes: readonly number[] = purpose === 'backup' ? blockSizes : [0];
  if (!sizes.includes(blockSize)) throw refuse('HELLO block size', blockSize, sizes.join(', '));
  const creditBytes =
    purpose === 'restore' ? r.u32('credit', MIN_CREDIT_BYTES, MAX_CREDIT_BYTES) : r.u32('credit', 0, 0);
  r.zeros('reserved', 16);
  const disk = diskKey(r.text('disk key', purpose === 'rehearsal' ? 0 : 1, purpose === 'rehearsal' ? 0 : 255));
  const software = r.text('software', 0, 64);
  if (r.left > 256) throw refuse('HELLO head length', r.left, 'at most 256 bytes after its fields');
  return {
    type: 'hello',
    lowestVersion,
    highestVersion,
    purpose,
    ...(token === null ? {} : { token }),
    restorePointId: restorePoint,
    run,
    fence,
    sizeBytes,
    blockSize,
    creditBytes,
    diskKey: disk,
    software,
  };
}

function readWelcome(r: FieldReader): Welcome {
  const version = r.u16('version');
  const laneCount = r.u16('lanes', 1);
  const creditBytes = r.u32('credit', 0, MAX_CREDIT_BYTES);
  const sizeBytes = r.u64('size', MAX_DISK_BYTES);
  const blockSize = r.u32('block size', 0, MAX_PAYLOAD_BYTES);
  const windowCount = r.u32('windows', 0, Math.ceil(sizeBytes / WINDOW_BYTES));
  const lowWater = r.u32('low water', 0, windowCount);
  const auditDue = r.u8('audit due', 0, 1) === 1;
  r.zeros('reserved', 15);
  const count = r.u32('windows above', 0, MAX_ABOVE_WINDOWS);
  const above = Array.from({ length: count }, () => r.u32('window above', lowWater, Math.max(0, windowCount - 1)));
  r.end();
  const disk = { creditBytes, sizeBytes, blockSize, windowCount, lowWater, auditDue, above };
  return { type: 'welcome', version, laneCount, ...disk };
}

function readError(r: FieldReader): Message {
  const text = r.matching('code', r.text('code', 1, 64), /^[A-Z_]+$/);
  const message = r.text('message', 0, 4096);
  r.zeros('padding', r.left);
  return { type: 'error', code: isErrorCode(text) ? text : 'BUG', message };
}

const readWindow = (r: FieldReader): number => r.u32('window');
const readBlockPlace = (r: FieldReader): number => r.u16('block', 0, MAX_WINDOW_BLOCKS - 1);

function readNames<T extends string>(r: FieldReader, field: string, count: number, names: readonly T[]): T[] {
  return Array.from(r.bytes(field, count), (value) => {
    const name = names[value];
    if (!name) throw refuse(field, value, `0 to ${names.length - 1}`);
    return name;
  });
}

function readOffer(r: FieldReader): Offer {
  const window = readWindow(r);
  const firstBlock = readBlockPlace(r);
  const count = r.u16('count', 1, MAX_WINDOW_BLOCKS - firstBlock);
  const classes = readNames(r, 'OFFER class', count, classNames);
  const digests = r.bytes('digests', 32 * classes.filter((name) => name === 'data').length);
  r.end();
  return { type: 'offer', window, firstBlock, classes, digests };
}

function readAnswer(r: FieldReader): Answer {
  const window = readWindow(r);
  const firstBlock = readBlockPlace(r);
  const count = r.u16('count', 1, MAX_WINDOW_BLOCKS - firstBlock);
  const answers = readNames(r, 'ANSWER answer', count, answerNames);
  r.end();
  return { type: 'answer', window, firstBlock, answers };
}

function readBlockHead(r: FieldReader, payloadLength: number): BlockHead {
  const window = readWindow(r);
  const block = readBlockPlace(r);
  const codec = r.one('codec', codecNames);
  r.zeros('reserved', 1);
  const rawLength = r.u32('raw length', 1, MAX_PAYLOAD_BYTES);
  r.zeros('reserved', 4);
  r.end();
  const fits = codec === 'none' ? payloadLength === rawLength : payloadLength < rawLength;
  if (!fits) throw refuse('payload length', payloadLength, `${codec === 'none' ? 'equal to' : 'below'} ${rawLength}`);
  return { window, block, codec, rawLength };
}

function readWindowEnd(r: FieldReader): WindowEnd {
  const window = readWindow(r);
  r.zeros('reserved', 4);
  const sums = readSums(r);
  r.end();
  return { type: 'windowEnd', window, sums };
}

function readWindowDigest(r: FieldReader): WindowDigest {
  const window = readWindow(r);
  r.zeros('reserved', 4);
  const digest = r.bytes('digest', 32);
  const sums = readSums(r);
  r.end();
  return { type: 'windowDigest', window, digest, sums };
}

function readSums(r: FieldReader): WindowEnd['sums'] {
  const sum = (field: string): number => r.u64(field, WINDOW_BYTES);
  return {
    notReadBytes: sum('bytes not read'),
    unallocatedBytes: sum('bytes unallocated'),
    zeroBytes: sum('bytes zero'),
    dataBytes: sum('bytes data'),
  };
}

function readEntries(r: FieldReader): Message {
  const window = readWindow(r);
  const count = r.u16('count', 1, MAX_WINDOW_BLOCKS);
  r.zeros('reserved', 2);
  const digests = r.bytes('digests', 32 * count);
  r.end();
  return { type: 'entries', window, digests };
}

function readWant(r: FieldReader): Message {
  const want = {
    type: 'want' as const,
    window: readWindow(r),
    block: readBlockPlace(r),
    reason: r.one('reason', wantReasons),
    attempt: r.u8('attempt', 1, 3),
  };
  r.end();
  return want;
}

function readAuditSample(r: FieldReader): AuditSample {
  const audited = r.u32('audited');
  const wanted = r.u32('wanted');
  const count = r.u16('count', 0, MAX_AUDIT_BLOCKS);
  r.zeros('reserved', 2);
  const blocks = Array.from({ length: count }, () => r.u32('block'));
  r.end();
  return { type: 'auditSample', audited, wanted, blocks };
}

function readAuditAnswer(r: FieldReader): AuditAnswer {
  const count = r.u16('count', 1, MAX_AUDIT_BLOCKS);
  r.zeros('reserved', 2);
  const classes = readNames(r, 'AUDIT_ANSWER class', count, auditClasses);
  const digests = r.bytes('digests', 32 * classes.filter((name) => name === 'data').length);
  r.end();
  return { type: 'auditAnswer', classes, digests };
}

function readAudit(r: FieldReader): Message {
  const changedBytes = r.u64('changed bytes', MAX_DISK_BYTES);
  r.end();
  return { type: 'audit', changedBytes };
}

const readRun = (r: FieldReader): { firstWindow: number; count: number } => ({
  firstWindow: readWindow(r),
  count: r.u32('count', 1),
});

function readAck(r: FieldReader): Message {
  const ack = { type: 'ack' as const, ...readRun(r), busyMs: r.u32('busy') };
  r.zeros('reserved', 4);
  return ack;
}

function readWindowDone(r: FieldReader): Message {
  const done = { type: 'windowDone' as const, window: readWindow(r), busyMs: r.u32('busy'), heldMs: r.u32('held') };
  r.zeros('reserved', 4);
  r.end();
  return done;
}

function readRate(r: FieldReader): Message {
  const rate = { type: 'rate' as const, bytesPerSecond: r.u64('bytes per second'), limit: r.text('limit', 0, 128) };
  r.end();
  return rate;
}

const readers: Record<FrameType, (r: FieldReader, payloadLength: number) => Message> = {
  hello: readHello,
  welcome: readWelcome,
  error: readError,
  bye: () => ({ type: 'bye' }),
  goTo: (r) => {
    const path = r.text('path', 1, 255);
    r.zeros('padding', 1);
    r.end();
    return { type: 'goTo', path };
  },
  offer: readOffer,
  answer: readAnswer,
  data: (r, length) => ({ type: 'data', ...readBlockHead(r, length) }),
  want: readWant,
  credit: (r) => ({ type: 'credit', bytes: r.u32('bytes', 1, MAX_CREDIT_BYTES) }),
  windowEnd: readWindowEnd,
  ack: readAck,
  rate: readRate,
  untouched: (r) => ({ type: 'untouched', ...readRun(r) }),
  get: (r) => ({ type: 'get', window: readWindow(r) }),
  entries: readEntries,
  block: (r, length) => ({ type: 'block', ...readBlockHead(r, length) }),
  windowDone: readWindowDone,
  audit: readAudit,
  auditSample: readAuditSample,
  auditAnswer: readAuditAnswer,
  windowDigest: readWindowDigest,
  windowDiffers: (r) => ({ type: 'windowDiffers', window: readWindow(r) }),
};

/** Throws PROTOCOL_ERROR naming the field. Digests are copies of the head's own memory, not of the decoder's. */
export const decodeMessage = (frame: Frame): Message =>
  readers[frame.type](new FieldReader(frameTypes[frame.type].name, frame.head), frame.payload.length);
