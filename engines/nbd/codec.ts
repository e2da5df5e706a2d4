/**
 * NBD on the wire: fixed newstyle handshake, structured replies, block status. Numbers are big-endian.
 * The specification is the protocol document of the NetworkBlockDevice project.
 */
import type { Extent } from '../../schema/domain/extents.ts';
export const NBD_MAGIC = 0x4e42_444d_4147_4943n; // "NBDMAGIC"
export const OPTION_MAGIC = 0x4948_4156_454f_5054n; // "IHAVEOPT"
export const OPTION_REPLY_MAGIC = 0x0003_e889_0455_65a9n;
export const REQUEST_MAGIC = 0x2560_9513;
export const SIMPLE_REPLY_MAGIC = 0x6744_6698;
export const STRUCTURED_REPLY_MAGIC = 0x668e_33ef;

/** Server: fixed newstyle | no zeroes; the client answers with the same. */
export const HANDSHAKE_FLAGS = 3;
export const option = { abort: 2, go: 7, structuredReply: 8, setMetaContext: 10 } as const;
export const optionReply = {
  ack: 1,
  info: 3,
  metaContext: 4,
  unsupported: 0x8000_0001,
  invalid: 0x8000_0003,
  unknown: 0x8000_0006,
} as const;
export const info = { export: 0, blockSize: 3 } as const;
export const command = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, writeZeroes: 6, blockStatus: 7 } as const;
export const commandFlag = { fua: 1, noHole: 2, reqOne: 8 } as const;
export const chunk = { none: 0, data: 1, hole: 2, blockStatus: 5, error: 0x8001, errorOffset: 0x8002 } as const;
export const CHUNK_DONE = 1;
export const transmissionFlag = {
  hasFlags: 1,
  readOnly: 2,
  flush: 4,
  fua: 8,
  trim: 32,
  writeZeroes: 64,
  multiConnection: 256,
} as const;

export const BASE_ALLOCATION = 'base:allocation';
/** Bits of `base:allocation` and of `qemu:dirty-bitmap:*`. */
export const allocationFlag = { hole: 1, zero: 2 } as const;
export const DIRTY_FLAG = 1;

/** Longest things we accept from the other side; a longer one ends the connection. */
export const limits = {
  nameBytes: 4096,
  optionBytes: 64 * 1024,
  optionReplies: 256,
  errorTextBytes: 4096,
  statusChunkBytes: 16 * 1024 * 1024,
  /** Largest read or write that QEMU serves. */
  payloadBytes: 32 * 1024 * 1024,
  contexts: 16,
} as const;

const errnoNames: Record<number, string> = {
  1: 'EPERM',
  5: 'EIO',
  12: 'ENOMEM',
  22: 'EINVAL',
  28: 'ENOSPC',
  75: 'EOVERFLOW',
  95: 'ENOTSUP',
  108: 'ESHUTDOWN',
};
export const errnoName = (errno: number): string => errnoNames[errno] ?? `errno ${errno}`;

export const REQUEST_BYTES = 28;
export type NbdRequest = { flags: number; type: number; handle: number; offset: number; length: number };

export function encodeRequest(request: NbdRequest): Buffer {
  const bytes = Buffer.alloc(REQUEST_BYTES);
  bytes.writeUInt32BE(REQUEST_MAGIC, 0);
  bytes.writeUInt16BE(request.flags, 4);
  bytes.writeUInt16BE(request.type, 6);
  bytes.writeBigUInt64BE(BigInt(request.handle), 8);
  bytes.writeBigUInt64BE(BigInt(request.offset), 16);
  bytes.writeUInt32BE(request.length, 24);
  return bytes;
}

export function encodeOption(code: number, data: Uint8Array): Buffer {
  const head = Buffer.alloc(16);
  head.writeBigUInt64BE(OPTION_MAGIC, 0);
  head.writeUInt32BE(code, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([head, data]);
}

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
const sizedText = (text: string): Buffer => Buffer.concat([u32(Buffer.byteLength(text)), Buffer.from(text)]);

/** Body of SET_META_CONTEXT. */
export const encodeMetaContexts = (exportName: string, contexts: readonly string[]): Buffer =>
  Buffer.concat([sizedText(exportName), u32(contexts.length), ...contexts.map(sizedText)]);

/** Body of GO: name and the one information we ask for beside the size. */
export function encodeGo(exportName: string): Buffer {
  const tail = Buffer.alloc(4);
  tail.writeUInt16BE(1, 0);
  tail.writeUInt16BE(info.blockSize, 2);
  return Buffer.concat([sizedText(exportName), tail]);
}

/** A number of the wire that must be exact in JavaScript. */
export function safeNumber(value: bigint, what: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new RangeError(`${what} of ${value} is too large`);
  return Number(value);
}

/**
 * What a parser of a stream is: it yields each buffer it wants filled. One generator reads a whole connection, so
 * nothing is kept between packets but the generator itself.
 */
export type Parser = Generator<Uint8Array, void, undefined>;

export function* take(count: number): Generator<Uint8Array, Buffer, undefined> {
  const bytes = Buffer.alloc(count);
  if (count > 0) yield bytes;
  return bytes;
}

/** Hands the bytes of a stream to a parser, whatever the packets' borders. */
export class Pump {
  readonly #parser: Parser;
  #target: Uint8Array | null;
  #filled = 0;

  constructor(parser: Parser) {
    this.#parser = parser;
    this.#target = this.#next();
  }

  /** Throws what the parser throws. Bytes after the parser's end are dropped. */
  push(bytes: Uint8Array): void {
    let at = 0;
    while (this.#target && at < bytes.length) {
      const count = Math.min(bytes.length - at, this.#target.length - this.#filled);
      this.#target.set(bytes.subarray(at, at + count), this.#filled);
      this.#filled += count;
      at += count;
      if (this.#filled === this.#target.length) this.#target = this.#next();
    }
  }

  /** What is still to come for the buffer in work goes to a throw-away one: nobody waits for it any more. */
  divert(): void {
    if (this.#target) this.#target = new Uint8Array(this.#target.length);
  }

  #next(): Uint8Array | null {
    this.#filled = 0;
    const step = this.#parser.next();
    return step.done ? null : step.value;
  }
}

/** Flags as the context defines them: `allocationFlag` bits, or `DIRTY_FLAG`. */
export type StatusExtent = Extent & { flags: number };
