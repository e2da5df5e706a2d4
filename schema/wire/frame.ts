/** Frames of the wire (PROTOCOL.md): header, limits by type, and a streaming decoder. Bytes unless said otherwise. */
import { crc32 } from 'node:zlib';
import { TidemarkError } from '../domain/errors.ts';

export const FRAME_HEADER_BYTES = 24;
export const MAX_PAYLOAD_BYTES = 4 * 1024 * 1024;
export const MAX_ABOVE_WINDOWS = 65_536;
const MAGIC = 0x4657_4d54; // "TMWF"

type FrameLimits = { code: number; name: string; minHead: number; maxHead: number; payload: boolean };
const limits = (code: number, name: string, minHead: number, maxHead: number, payload = false): FrameLimits => ({
  code,
  name,
  minHead,
  maxHead,
  payload,
});

export const frameTypes = {
  hello: limits(1, 'HELLO', 112, 688),
  welcome: limits(2, 'WELCOME', 48, 48 + 4 * MAX_ABOVE_WINDOWS),
  error: limits(3, 'ERROR', 8, 4256),
  bye: limits(4, 'BYE', 0, 0),
  goTo: limits(5, 'GO_TO', 3, 300),
  offer: limits(10, 'OFFER', 8, 8456),
  answer: limits(11, 'ANSWER', 8, 264),
  data: limits(12, 'DATA', 16, 16, true),
  want: limits(13, 'WANT', 8, 8),
  credit: limits(14, 'CREDIT', 4, 4),
  windowEnd: limits(15, 'WINDOW_END', 40, 40),
  ack: limits(16, 'ACK', 16, 16),
  untouched: limits(17, 'UNTOUCHED', 8, 8),
  rate: limits(18, 'RATE', 10, 138),
  get: limits(20, 'GET', 4, 4),
  entries: limits(21, 'ENTRIES', 40, 8200),
  block: limits(22, 'BLOCK', 16, 16, true),
  windowDone: limits(23, 'WINDOW_DONE', 16, 16),
  audit: limits(24, 'AUDIT', 8, 8),
  auditSample: limits(25, 'AUDIT_SAMPLE', 12, 12 + 4 * 256),
  auditAnswer: limits(26, 'AUDIT_ANSWER', 4, 4 + 33 * 256),
  windowDigest: limits(27, 'WINDOW_DIGEST', 72, 72),
  windowDiffers: limits(28, 'WINDOW_DIFFERS', 4, 4),
} as const;
export type FrameType = keyof typeof frameTypes;

const byCode = new Map(Object.entries(frameTypes).map(([type, row]) => [row.code, type as FrameType]));

/** Every refusal of the wire: names the field, what was found and what is allowed. */
export const refuse = (field: string, found: unknown, allowed: string): TidemarkError =>
  new TidemarkError('PROTOCOL_ERROR', `frame refused: ${field} is ${String(found)}, allowed is ${allowed}`, {
    field,
    found: String(found),
  });

/** Header and head, to be written before the payload (which is not copied). */
export function encodeFrame(type: FrameType, head: Uint8Array, payloadLength = 0): Buffer {
  const frame = Buffer.alloc(FRAME_HEADER_BYTES + head.length);
  frame.writeUInt32LE(MAGIC, 0);
  frame.writeUInt8(frameTypes[type].code, 5);
  frame.writeUInt32LE(head.length, 8);
  frame.writeUInt32LE(payloadLength, 12);
  frame.writeUInt32LE(crc32(head), 16);
  frame.writeUInt32LE(crc32(frame.subarray(0, 20)), 20);
  frame.set(head, FRAME_HEADER_BYTES);
  return frame;
}

export type FrameHeader = { type: FrameType; headLength: number; payloadLength: number; headCrc: number };

/** Throws PROTOCOL_ERROR naming the field; nothing is allocated from a length before it is checked here. */
export function decodeHeader(bytes: Buffer): FrameHeader {
  const magic = bytes.readUInt32LE(0);
  if (magic !== MAGIC) throw refuse('magic', `0x${magic.toString(16)}`, '"TMWF"');
  const crc = bytes.readUInt32LE(20);
  if (crc !== crc32(bytes.subarray(0, 20))) throw refuse('header crc', crc, 'the crc of bytes 0 to 19');
  const version = bytes.readUInt8(4);
  if (version !== 0) throw refuse('frame version', version, '0');
  const code = bytes.readUInt8(5);
  const type = byCode.get(code);
  if (!type) throw refuse('type', code, 'a type of PROTOCOL.md');
  const flags = bytes.readUInt16LE(6);
  if (flags !== 0) throw refuse('flags', flags, '0');
  const row = frameTypes[type];
  const headLength = bytes.readUInt32LE(8);
  if (headLength < row.minHead || headLength > row.maxHead)
    throw refuse(`${row.name} head length`, headLength, `${row.minHead} to ${row.maxHead}`);
  const payloadLength = bytes.readUInt32LE(12);
  const [least, most] = row.payload ? [1, MAX_PAYLOAD_BYTES] : [0, 0];
  if (payloadLength < least || payloadLength > most)
    throw refuse(`${row.name} payload length`, payloadLength, `${least} to ${most}`);
  return { type, headLength, payloadLength, headCrc: bytes.readUInt32LE(16) };
}

/** `payload` is the decoder's own memory: valid only until the handler returns. */
export type Frame = { type: FrameType; head: Buffer; payload: Buffer };

/**
 * Takes the bytes of a stream in any pieces and calls `onFrame` for each whole frame. Holds at most one head and
 * one payload, whose memory it reuses. After an error it must not be used again.
 */
export class FrameDecoder {
  readonly #onFrame: (frame: Frame) => void;
  readonly #headerBytes = Buffer.alloc(FRAME_HEADER_BYTES);
  #payloadMemory = Buffer.alloc(0);
  #header: FrameHeader | null = null;
  #head = Buffer.alloc(0);
  #filled = 0;

  constructor(onFrame: (frame: Frame) => void) {
    this.#onFrame = onFrame;
  }

  /** Whether bytes of a frame that is not whole yet are held. */
  get inFrame(): boolean {
    return this.#header !== null || this.#filled > 0;
  }

  push(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length) at += this.#header ? this.#takeBody(bytes, at) : this.#takeHeader(bytes, at);
  }

  #takeHeader(bytes: Uint8Array, at: number): number {
    const count = Math.min(FRAME_HEADER_BYTES - this.#filled, bytes.length - at);
    this.#headerBytes.set(bytes.subarray(at, at + count), this.#filled);
    this.#filled += count;
    if (this.#filled < FRAME_HEADER_BYTES) return count;
    this.#header = decodeHeader(this.#headerBytes);
    this.#filled = 0;
    this.#head = Buffer.alloc(this.#header.headLength);
    if (this.#payloadMemory.length < this.#header.payloadLength)
      this.#payloadMemory = Buffer.allocUnsafeSlow(Math.max(this.#header.payloadLength, 256 * 1024));
    if (this.#header.headLength === 0 && this.#header.payloadLength === 0) this.#deliver();
    return count;
  }

  #takeBody(bytes: Uint8Array, at: number): number {
    const { headLength, payloadLength } = this.#header!;
    const inHead = this.#filled < headLength;
    const target = inHead ? this.#head : this.#payloadMemory;
    const start = inHead ? this.#filled : this.#filled - headLength;
    const count = Math.min((inHead ? headLength : payloadLength) - start, bytes.length - at);
    target.set(bytes.subarray(at, at + count), start);
    this.#filled += count;
    if (inHead && this.#filled === headLength) this.#checkHead();
    if (this.#filled === headLength + payloadLength) this.#deliver();
    return count;
  }

  /** Before the payload is waited for: a wrong head ends the connection at once. */
  #checkHead(): void {
    const { type, headCrc } = this.#header!;
    if (crc32(this.#head) !== headCrc)
      throw refuse(`${frameTypes[type].name} head crc`, headCrc, 'the crc of the head');
  }

  #deliver(): void {
    const { type, payloadLength } = this.#header!;
    const frame = { type, head: this.#head, payload: this.#payloadMemory.subarray(0, payloadLength) };
    this.#header = null;
    this.#filled = 0;
    this.#onFrame(frame);
  }
}
