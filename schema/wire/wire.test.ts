import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { diskKey, restorePointId, runKey } from '../domain/ids.ts';
import { encodeFrame, FRAME_HEADER_BYTES, type Frame, FrameDecoder, frameTypes } from './frame.ts';
import { decodeMessage, encodeMessage, type Message } from './messages.ts';

const hello: Message = {
  type: 'hello',
  lowestVersion: 1,
  highestVersion: 1,
  purpose: 'backup',
  restorePointId: restorePointId('00112233445566778899aabbccddeeff'),
  run: runKey('abcdef012345'),
  fence: 7,
  sizeBytes: 2_500_000,
  blockSize: 1_048_576,
  creditBytes: 0,
  diskKey: diskKey('d0'),
  software: 'tidemark',
};
const digest = Buffer.alloc(32, 0xd1);
const welcome = {
  type: 'welcome',
  version: 1,
  laneCount: 2,
  creditBytes: 16_777_216,
  blockSize: 1_048_576,
  auditDue: false,
} as const;

test('HELLO carries a token between machines; one that is not announced is no HELLO', () => {
  const withToken = { ...hello, token: 'a5'.repeat(32) };
  const bytes = encodeMessage(withToken);
  const frames: Message[] = [];
  new FrameDecoder((frame) => void frames.push(decodeMessage(frame))).push(bytes);
  expect(frames).toEqual([withToken]);
  const head = Buffer.from(bytes.subarray(FRAME_HEADER_BYTES));
  head[5] = 0;
  expect(() => new FrameDecoder(decodeMessage).push(encodeFrame('hello', head, 0))).toThrow('token');
});

/** What a whole exchange looks like; the payload of a DATA or BLOCK frame follows it. */
const transcripts: Record<string, { from: '>' | '<'; message: Message; payload?: Buffer }[]> = {
  backup: [
    { from: '>', message: hello },
    { from: '<', message: { type: 'goTo', path: '/run/tidemark/mover.1' } },
    { from: '>', message: hello },
    { from: '<', message: { ...welcome, sizeBytes: 2_500_000, windowCount: 1, lowWater: 0, above: [] } },
    { from: '<', message: { type: 'rate', bytesPerSecond: 13_107_200, limit: 'rule office' } },
    {
      from: '>',
      message: { type: 'offer', window: 0, firstBlock: 0, classes: ['data', 'zero', 'not-read'], digests: digest },
    },
    { from: '<', message: { type: 'answer', window: 0, firstBlock: 0, answers: ['want', 'none', 'none'] } },
    {
      from: '>',
      message: { type: 'data', window: 0, block: 0, codec: 'zstd', rawLength: 1_048_576 },
      payload: Buffer.from('payload'),
    },
    { from: '<', message: { type: 'want', window: 0, block: 0, reason: 'damaged', attempt: 1 } },
    { from: '<', message: { type: 'credit', bytes: 7 } },
    {
      from: '>',
      message: {
        type: 'windowEnd',
        window: 0,
        sums: { notReadBytes: 402_848, unallocatedBytes: 0, zeroBytes: 1_048_576, dataBytes: 1_048_576 },
      },
    },
    { from: '<', message: { type: 'ack', firstWindow: 0, count: 1, busyMs: 0x01020304 } },
    { from: '>', message: { type: 'untouched', firstWindow: 1, count: 9 } },
    { from: '<', message: { type: 'ack', firstWindow: 1, count: 9, busyMs: 0 } },
    { from: '>', message: { type: 'bye' } },
  ],
  comparison: [
    { from: '>', message: hello },
    { from: '<', message: { ...welcome, sizeBytes: 2_500_000, windowCount: 1, lowWater: 0, above: [] } },
    {
      from: '>',
      message: {
        type: 'windowDigest',
        window: 0,
        digest,
        sums: { notReadBytes: 0, unallocatedBytes: 0, zeroBytes: 1_048_576, dataBytes: 1_451_424 },
      },
    },
    { from: '<', message: { type: 'windowDiffers', window: 0 } },
  ],
  audit: [
    { from: '>', message: hello },
    {
      from: '<',
      message: { ...welcome, auditDue: true, sizeBytes: 2_500_000, windowCount: 1, lowWater: 0, above: [] },
    },
    { from: '>', message: { type: 'audit', changedBytes: 1_048_576 } },
    { from: '<', message: { type: 'auditSample', audited: 0, wanted: 2, blocks: [2, 0, 1] } },
    {
      from: '>',
      message: { type: 'auditAnswer', classes: ['zero', 'changed', 'data'], digests: digest },
    },
    { from: '<', message: { type: 'auditSample', audited: 2, wanted: 2, blocks: [] } },
  ],
  restore: [
    {
      from: '>',
      message: {
        ...hello,
        purpose: 'restore',
        fence: 0,
        sizeBytes: 0,
        blockSize: 0,
        creditBytes: 16_777_216,
      },
    },
    {
      from: '<',
      message: { ...welcome, creditBytes: 0, sizeBytes: 2_500_000, windowCount: 1, lowWater: 0, above: [] },
    },
    { from: '>', message: { type: 'get', window: 0 } },
    { from: '<', message: { type: 'entries', window: 0, digests: Buffer.concat([digest, Buffer.alloc(64)]) } },
    {
      from: '<',
      message: { type: 'block', window: 0, block: 0, codec: 'lz4', rawLength: 1_048_576 },
      payload: Buffer.from('payload'),
    },
    { from: '<', message: { type: 'windowDone', window: 0, busyMs: 0x01020304, heldMs: 0x05060708 } },
    { from: '>', message: { type: 'credit', bytes: 7 } },
    {
      from: '<',
      message: { type: 'error', code: 'DAMAGED_BLOCK', message: 'block 0 of disk d0 does not match its digest' },
    },
  ],
};

const lineOf = ({ from, message, payload = Buffer.alloc(0) }: (typeof transcripts)[string][number]): string => {
  const bytes = Buffer.concat([encodeMessage(message, payload.length), payload]);
  return `${from} ${frameTypes[message.type].name} ${bytes.toString('hex')}`;
};

test.each(Object.keys(transcripts))('the golden transcript of a %s is said byte for byte, and understood', (name) => {
  const file = new URL(`./golden/${name}.hex`, import.meta.url);
  const text = `${transcripts[name]!.map(lineOf).join('\n')}\n`;
  if (process.env['TIDEMARK_WRITE_GOLDEN']) writeFileSync(file, text);
  expect(text).toBe(readFileSync(file, 'utf8'));
  const heard: Message[] = [];
  const decoder = new FrameDecoder((frame) => heard.push(decodeMessage(frame)));
  for (const line of readFileSync(file, 'utf8').trimEnd().split('\n')) {
    // Byte by byte: no border of a packet means anything.
    for (const byte of Buffer.from(line.split(' ')[2]!, 'hex')) decoder.push(Buffer.of(byte));
  }
  expect(heard).toEqual(transcripts[name]!.map(({ message }) => message));
  expect(decoder.inFrame).toBe(false);
});

const decode = (bytes: Uint8Array): Message[] => {
  const heard: Message[] = [];
  new FrameDecoder((frame: Frame) => heard.push(decodeMessage(frame))).push(bytes);
  return heard;
};

test.each([
  ['magic', (b: Buffer) => b.writeUInt8(0, 0)],
  ['header crc', (b: Buffer) => b.writeUInt32LE(5000, 8)],
  ['head crc', (b: Buffer) => b.writeUInt8(99, FRAME_HEADER_BYTES)],
])('a frame with a wrong %s is refused by that name', (field, spoil) => {
  const bytes = encodeMessage(hello);
  spoil(bytes);
  expect(() => decode(bytes)).toThrow(field);
});

test.each([
  ['GET head length', encodeFrame('get', Buffer.alloc(5))],
  ['DATA payload length', encodeFrame('data', Buffer.alloc(16), 4 * 1024 * 1024 + 1)],
  ['DATA payload length', encodeFrame('data', Buffer.alloc(16), 0)],
  ['GET payload length', encodeFrame('get', Buffer.alloc(4), 1)],
  ['OFFER count', encodeFrame('offer', Buffer.alloc(8))],
  ['WANT attempt', encodeFrame('want', Buffer.from([0, 0, 0, 0, 0, 0, 1, 9]))],
  ['CREDIT bytes', encodeFrame('credit', Buffer.alloc(4))],
  ['WINDOW_DIGEST bytes not read', encodeFrame('windowDigest', Buffer.alloc(72, 1).fill(0, 4, 8))],
  ['AUDIT_SAMPLE count', encodeFrame('auditSample', Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0]))],
  ['AUDIT_ANSWER count', encodeFrame('auditAnswer', Buffer.alloc(4))],
  ['HELLO purpose', encodeFrame('hello', Buffer.alloc(112))],
])('a lying head is refused naming %s, before anything is allocated', (field, bytes) => {
  expect(() => decode(bytes)).toThrow(field);
});

test.each([
  ['HELLO disk key', hello, 'd0'],
  ['HELLO software', hello, 'tidemark'],
  ['ERROR message', { type: 'error', code: 'BUG', message: 'what was' }, 'what was'],
  ['GO_TO path', { type: 'goTo', path: '/run/mover' }, '/run/mover'],
] as [string, Message, string][])('a text that is no UTF-8 is refused: %s', (field, message, text) => {
  const frame = encodeMessage(message);
  const head = Buffer.from(frame.subarray(FRAME_HEADER_BYTES));
  head[head.indexOf(text) + text.length - 1] = 0xc3;
  expect(() => decode(encodeFrame(message.type, head))).toThrow(`frame refused: ${field} is "`);
  // A byte order mark is part of the text.
  const marked = { ...hello, software: '\ufeffx' };
  expect(decode(encodeMessage(marked))).toEqual([marked]);
});
