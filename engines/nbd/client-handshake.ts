/** The client's half of the fixed newstyle handshake, as a parser that ends with what was agreed. */
import { TidemarkError } from '../../schema/domain/errors.ts';
import {
  BASE_ALLOCATION,
  encodeGo,
  encodeMetaContexts,
  encodeOption,
  HANDSHAKE_FLAGS,
  info,
  limits,
  NBD_MAGIC,
  option,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  optionReply,
  safeNumber,
  take,
} from './codec.ts';

export type Negotiated = {
  sizeBytes: number;
  /** Transmission flags of the export. */
  flags: number;
  blockSize: { minimum: number; preferred: number; maximum: number };
  /** Context id on this connection to its name. */
  contexts: Map<number, string>;
};

export type HandshakeWish = {
  exportName: string;
  contexts: readonly string[];
  /** "export d0 on unix:/run/x.sock": for messages. */
  what: string;
  send: (bytes: Uint8Array) => void;
};

const bad = (wish: HandshakeWish, message: string, details: Record<string, unknown> = {}): TidemarkError =>
  new TidemarkError('HYPERVISOR_ERROR', `${wish.what}: ${message}`, { export: wish.exportName, ...details });

type OptionReply = { type: number; data: Buffer };

export function* handshake(wish: HandshakeWish): Generator<Uint8Array, Negotiated, undefined> {
  const greeting = yield* take(18);
  if (greeting.readBigUInt64BE(0) !== NBD_MAGIC || greeting.readBigUInt64BE(8) !== OPTION_MAGIC)
    throw bad(wish, 'what answers is not an NBD server of the newstyle protocol');
  if ((greeting.readUInt16BE(16) & HANDSHAKE_FLAGS) !== HANDSHAKE_FLAGS)
    throw bad(wish, 'the NBD server does not speak the fixed newstyle handshake');
  const flags = Buffer.alloc(4);
  flags.writeUInt32BE(HANDSHAKE_FLAGS);
  wish.send(flags);
  yield* ask(wish, option.structuredReply, Buffer.alloc(0));
  const contexts = wish.contexts.length > 0 ? yield* agreeContexts(wish) : new Map<number, string>();
  const replies = yield* ask(wish, option.go, encodeGo(wish.exportName));
  return { ...readInfos(wish, replies), contexts };
}

/** Sends an option and collects its replies up to the acknowledgement; an error reply throws. */
function* ask(wish: HandshakeWish, code: number, body: Buffer): Generator<Uint8Array, OptionReply[], undefined> {
  wish.send(encodeOption(code, body));
  const replies: OptionReply[] = [];
  for (;;) {
    const head = yield* take(20);
    const length = head.readUInt32BE(16);
    if (head.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC || head.readUInt32BE(8) !== code)
      throw bad(wish, 'the NBD server answered another option than was asked');
    if (length > limits.optionBytes || replies.length >= limits.optionReplies)
      throw bad(wish, `the NBD server's answer to option ${code} is too long`);
    const reply = { type: head.readUInt32BE(12), data: yield* take(length) };
    if (reply.type === optionReply.ack) return replies;
    if (reply.type >= 0x8000_0000) throw refusal(wish, code, reply);
    replies.push(reply);
  }
}

function refusal(wish: HandshakeWish, code: number, reply: OptionReply): TidemarkError {
  const said = reply.data.toString('utf8', 0, limits.errorTextBytes);
  if (reply.type === optionReply.unknown)
    return bad(wish, `the NBD server has no such export${said ? ` (${said})` : ''}`, { unknownExport: true });
  if (code === option.structuredReply) return bad(wish, 'the NBD server has no structured replies');
  return bad(wish, `the NBD server refused option ${code}: ${said || `error ${reply.type - 0x8000_0000}`}`);
}

/** A context the server lacks is merely absent from its reply: without this check an increment would have no map. */
function* agreeContexts(wish: HandshakeWish): Generator<Uint8Array, Map<number, string>, undefined> {
  const replies = yield* ask(wish, option.setMetaContext, encodeMetaContexts(wish.exportName, wish.contexts));
  const contexts = new Map<number, string>();
  for (const { type, data } of replies) {
    if (type === optionReply.metaContext && data.length > 4)
      contexts.set(data.readUInt32BE(0), data.toString('utf8', 4));
  }
  const given = new Set(contexts.values());
  for (const name of wish.contexts) {
    if (given.has(name)) continue;
    const code = name === BASE_ALLOCATION ? 'HYPERVISOR_ERROR' : 'TRACKING_LOST';
    throw new TidemarkError(code, `${wish.what} has no block status context ${name}`, {
      export: wish.exportName,
      context: name,
    });
  }
  return contexts;
}

function readInfos(wish: HandshakeWish, replies: readonly OptionReply[]): Omit<Negotiated, 'contexts'> {
  let size: { sizeBytes: number; flags: number } | null = null;
  let blockSize: Negotiated['blockSize'] = { minimum: 1, preferred: 4096, maximum: limits.payloadBytes };
  for (const { type, data } of replies) {
    const kind = type === optionReply.info && data.length >= 2 ? data.readUInt16BE(0) : null;
    if (kind === info.export && data.length >= 12)
      size = { sizeBytes: safeNumber(data.readBigUInt64BE(2), 'an export size'), flags: data.readUInt16BE(10) };
    if (kind === info.blockSize && data.length >= 14)
      blockSize = {
        minimum: Math.max(1, data.readUInt32BE(2)),
        preferred: data.readUInt32BE(6),
        maximum: Math.max(4096, Math.min(data.readUInt32BE(10), limits.payloadBytes)),
      };
  }
  if (!size) throw bad(wish, 'the NBD server did not say the size of the export');
  return { ...size, blockSize };
}
