/** The client's reading side after the handshake: simple and structured replies, matched by handle. */
import { TidemarkError } from '../../schema/domain/errors.ts';
import {
  chunk,
  CHUNK_DONE,
  command,
  errnoName,
  limits,
  safeNumber,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
  take,
  type Parser,
  type StatusExtent,
} from './codec.ts';

/** A request in flight. */
export type Pending = {
  type: number;
  offset: number;
  length: number;
  /** READ: where the bytes go. */
  into?: Uint8Array;
  /** BLOCK_STATUS: where the extents go, by context name. */
  status?: Map<string, StatusExtent[]>;
  /** Bytes of a READ that came, data and holes. */
  received: number;
  /** Its bytes are on their way into `into` now. */
  receiving: boolean;
  error: TidemarkError | null;
  /** The caller gave up: what still comes is read and thrown away, its buffer is not touched. */
  dropped: boolean;
  settle: (error?: unknown) => void;
};

export type ReplyContext = { what: string; contexts: Map<number, string>; pending: Map<number, Pending> };

type ChunkHead = { flags: number; type: number; handle: number; length: number };

const broken = (context: ReplyContext, message: string): TidemarkError =>
  new TidemarkError('HYPERVISOR_ERROR', `${context.what}: the NBD server broke the protocol: ${message}`);

export function* replies(context: ReplyContext): Parser {
  for (;;) {
    const head = yield* take(16);
    const magic = head.readUInt32BE(0);
    if (magic === SIMPLE_REPLY_MAGIC) {
      yield* simpleReply(context, safeNumber(head.readBigUInt64BE(8), 'a handle'), head.readUInt32BE(4));
    } else if (magic === STRUCTURED_REPLY_MAGIC) {
      const length = (yield* take(4)).readUInt32BE(0);
      const handle = safeNumber(head.readBigUInt64BE(8), 'a handle');
      yield* structuredChunk(context, { flags: head.readUInt16BE(4), type: head.readUInt16BE(6), handle, length });
    } else throw broken(context, `reply magic ${magic.toString(16)}`);
  }
}

function pendingOf(context: ReplyContext, handle: number): Pending {
  const pending = context.pending.get(handle);
  if (!pending) throw broken(context, `a reply to handle ${handle}, which nobody asked`);
  return pending;
}

function* simpleReply(context: ReplyContext, handle: number, errno: number): Parser {
  const pending = pendingOf(context, handle);
  if (errno !== 0) pending.error = failed(context, pending, errno, '');
  else if (pending.type === command.blockStatus) throw broken(context, 'a simple reply to block status');
  else if (pending.type === command.read) {
    yield* fill(pending, 0, pending.length);
    pending.received = pending.length;
  }
  finish(context, handle, pending);
}

function* structuredChunk(context: ReplyContext, head: ChunkHead): Parser {
  const pending = pendingOf(context, head.handle);
  if (head.type === chunk.data) yield* dataChunk(context, pending, head);
  else if (head.type === chunk.hole) yield* holeChunk(context, pending, head);
  else if (head.type === chunk.blockStatus) yield* statusChunk(context, pending, head);
  else if (head.type >= 0x8000) yield* errorChunk(context, pending, head);
  else if (head.type !== chunk.none || head.length !== 0) throw broken(context, `a chunk of type ${head.type}`);
  if (head.flags & CHUNK_DONE) finish(context, head.handle, pending);
}

function* dataChunk(context: ReplyContext, pending: Pending, head: ChunkHead): Parser {
  if (head.length < 8) throw broken(context, 'a data chunk without an offset');
  const offset = safeNumber((yield* take(8)).readBigUInt64BE(0), 'an offset');
  const length = head.length - 8;
  account(context, pending, offset, length);
  yield* fill(pending, offset - pending.offset, length);
}

function* holeChunk(context: ReplyContext, pending: Pending, head: ChunkHead): Parser {
  if (head.length !== 12) throw broken(context, `a hole chunk of ${head.length} bytes`);
  const body = yield* take(12);
  const offset = safeNumber(body.readBigUInt64BE(0), 'an offset');
  const length = body.readUInt32BE(8);
  account(context, pending, offset, length);
  if (!pending.dropped) pending.into?.fill(0, offset - pending.offset, offset - pending.offset + length);
}

/** Each byte of a read comes once, inside what was asked. */
function account(context: ReplyContext, pending: Pending, offset: number, length: number): void {
  const inside = offset >= pending.offset && offset + length <= pending.offset + pending.length;
  pending.received += length;
  if (pending.type !== command.read || !inside || pending.received > pending.length)
    throw broken(context, `bytes ${offset}+${length} in reply to ${pending.offset}+${pending.length}`);
}

function* fill(pending: Pending, start: number, length: number): Parser {
  if (length === 0) return;
  const wanted = !pending.dropped && pending.into;
  pending.receiving = true;
  yield wanted ? pending.into!.subarray(start, start + length) : new Uint8Array(length);
  pending.receiving = false;
}

function* statusChunk(context: ReplyContext, pending: Pending, head: ChunkHead): Parser {
  if (pending.type !== command.blockStatus || head.length < 12 || (head.length - 4) % 8 !== 0)
    throw broken(context, `a block status chunk of ${head.length} bytes`);
  if (head.length > limits.statusChunkBytes) throw broken(context, `a block status chunk of ${head.length} bytes`);
  const body = yield* take(head.length);
  const name = context.contexts.get(body.readUInt32BE(0));
  const list = name === undefined ? undefined : pending.status?.get(name);
  if (!list) throw broken(context, `block status of context ${body.readUInt32BE(0)}, which was not agreed`);
  const end = pending.offset + pending.length;
  let offset = pending.offset;
  for (let at = 4; at < body.length && offset < end; at += 8) {
    // The last extent may reach past what was asked.
    const length = Math.min(body.readUInt32BE(at), end - offset);
    if (length === 0) throw broken(context, 'an empty block status extent');
    list.push({ offset, length, flags: body.readUInt32BE(at + 4) });
    offset += length;
  }
}

function* errorChunk(context: ReplyContext, pending: Pending, head: ChunkHead): Parser {
  if (head.length < 6 || head.length > limits.errorTextBytes) throw broken(context, `an error of ${head.length} bytes`);
  const body = yield* take(head.length);
  const text = body.toString('utf8', 6, Math.min(body.length, 6 + body.readUInt16BE(4)));
  pending.error ??= failed(context, pending, body.readUInt32BE(0), text);
}

const commandNames: Record<number, string> = {
  [command.read]: 'reading',
  [command.write]: 'writing',
  [command.flush]: 'flushing',
  [command.trim]: 'trimming',
  [command.writeZeroes]: 'zeroing',
  [command.blockStatus]: 'asking the block status of',
};

function failed(context: ReplyContext, pending: Pending, errno: number, text: string): TidemarkError {
  const { offset, length } = pending;
  const doing = commandNames[pending.type] ?? 'asking';
  const message = `${context.what}: ${doing} ${length} bytes at ${offset} failed with ${errnoName(errno)}`;
  return new TidemarkError('HYPERVISOR_ERROR', text ? `${message}: ${text}` : message, { errno, offset, length });
}

function finish(context: ReplyContext, handle: number, pending: Pending): void {
  context.pending.delete(handle);
  if (pending.error) return pending.settle(pending.error);
  if (pending.type === command.read && pending.received !== pending.length)
    throw broken(context, `${pending.received} of ${pending.length} bytes in reply to a read at ${pending.offset}`);
  const silent = [...(pending.status ?? [])].find(([, extents]) => extents.length === 0);
  if (silent) throw broken(context, `no block status of ${silent[0]} at ${pending.offset}`);
  pending.settle();
}
