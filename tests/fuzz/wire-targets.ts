/** The wire between data movers (PROTOCOL.md): a stream of frames and what they say. Seeds are the golden transcripts. */
import { readFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { errorCodeOf } from '../../schema/domain/errors.ts';
import {
  encodeFrame,
  FRAME_HEADER_BYTES,
  FrameDecoder,
  frameTypes,
  MAX_PAYLOAD_BYTES,
  type Frame,
  type FrameType,
} from '../../schema/wire/frame.ts';
import { decodeMessage, encodeMessage, type Message } from '../../schema/wire/messages.ts';
import { encodingFlaw, fuzzTarget, type FuzzTarget } from './judge.ts';

const lines = ['backup', 'restore'].flatMap((name) => {
  const file = new URL(`../../schema/wire/golden/${name}.hex`, import.meta.url);
  return readFileSync(file, 'utf8').trimEnd().split('\n');
});
const frames = lines.map((line) => Buffer.from(line.split(' ')[2]!, 'hex'));

/** Frames one after another, each of the length its header says. */
function mendFrames(input: Buffer): Buffer {
  for (let at = 0; at + FRAME_HEADER_BYTES <= input.length;) {
    const head = at + FRAME_HEADER_BYTES;
    const headEnd = Math.min(input.length, head + input.readUInt32LE(at + 8));
    input.writeUInt32LE(crc32(input.subarray(head, headEnd)), at + 16);
    input.writeUInt32LE(crc32(input.subarray(at, at + 20)), at + 20);
    at = headEnd + input.readUInt32LE(at + 12);
  }
  return input;
}

type Heard = { type: FrameType; head: Buffer; payloadLength: number; message: Message };
/** No multiple of anything: borders of packets mean nothing. */
const PIECE_BYTES = 61;
const anyPayload = Buffer.alloc(MAX_PAYLOAD_BYTES);

/** What was understood before the first refusal; null when that was nothing. */
function hear(input: Buffer): Heard[] | null {
  const heard: Heard[] = [];
  const decoder = new FrameDecoder((frame: Frame) => {
    const { type, head, payload } = frame;
    heard.push({ type, head, payloadLength: payload.length, message: decodeMessage(frame) });
  });
  try {
    for (let at = 0; at < input.length; at += PIECE_BYTES) decoder.push(input.subarray(at, at + PIECE_BYTES));
  } catch (error) {
    if (heard.length === 0 || errorCodeOf(error) !== 'PROTOCOL_ERROR') throw error;
  }
  return heard.length === 0 ? null : heard;
}

function heardFlaw({ type, head, payloadLength, message }: Heard): string | null {
  // Codes of a newer version are all read as this one.
  if (message.type === 'error' && message.code === 'BUG') return null;
  const again = encodeMessage(message, payloadLength);
  const payload = anyPayload.subarray(0, payloadLength);
  const messageAgain = decodeMessage({ type, head: again.subarray(FRAME_HEADER_BYTES), payload });
  const flaw = encodingFlaw(encodeFrame(type, head, payloadLength), again, message, messageAgain);
  return flaw === null ? null : `${frameTypes[type].name}: ${flaw}`;
}

const greatestHead = Math.max(...Object.values(frameTypes).map(({ maxHead }) => maxHead));

export const wireTargets: FuzzTarget[] = [
  fuzzTarget<Heard[]>({
    name: 'wire',
    kind: 'binary',
    seeds: [...frames, Buffer.concat(frames.slice(0, 14)), Buffer.concat(frames.slice(14))],
    mend: mendFrames,
    parse: hear,
    codes: ['PROTOCOL_ERROR'],
    // Heads that came whole, one more that is announced, and room for a payload, first for a small one.
    maxAllocatedBytes: (inputBytes) => FRAME_HEADER_BYTES + inputBytes + greatestHead + 256 * 1024 + MAX_PAYLOAD_BYTES,
    flaw: (heard) => heard.map(heardFlaw).find((flaw) => flaw !== null) ?? null,
  }),
];
