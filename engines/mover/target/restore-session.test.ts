/** A block whose place is no longer what it was when it was asked for. */
import { expect, test } from 'vitest';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { RecordPlace } from '../../../schema/domain/seams.ts';
import type { Message } from '../../../schema/wire/messages.ts';
import type { Wire } from '../wire-session/wire.ts';
import { RestoreSession } from './restore-session.ts';
import { LaneWork } from './work-clock.ts';

const BLOCK = 4;
const placeIn = (pack: string): RecordPlace => ({
  pack,
  offset: 64,
  storedLength: BLOCK,
  rawLength: BLOCK,
  codec: 'none',
});

/** `packs`: where the block is said to be, from one question to the next; then it is nowhere. */
function sessionOf(packs: string[], packsThere: string[]) {
  const asked: string[] = [];
  let end: (value: unknown) => void = () => undefined;
  const ended = new Promise<unknown>((resolve) => (end = resolve));
  const sent: string[] = [];
  const told: unknown[] = [];
  const wire = {
    send: ({ type }: Message) => {
      sent.push(type);
      if (type === 'windowDone') end(sent);
    },
    sendBlock: async (_: Message, payload: Buffer) => void sent.push(payload.toString()),
    fail: (error: unknown) => end(error),
  } as unknown as Wire;
  const session = new RestoreSession({
    connection: 'c',
    wire,
    source: {
      begin: async () => ({ sizeBytes: BLOCK, blockSize: BLOCK }),
      resolve: async () => ({ digests: Buffer.alloc(32, 1), places: [placeIn(packs.shift()!)] }),
      damaged: async (_connection, _window, block, place, failure) => {
        told.push({ block, pack: place.pack, ...failure });
        const next = packs.shift();
        if (next) return placeIn(next);
        throw new TidemarkError('DAMAGED_BLOCK', 'it is nowhere');
      },
      end: async () => undefined,
    },
    records: {
      read: async ({ pack }) => {
        asked.push(pack);
        if (packsThere.includes(pack)) return Buffer.from('data');
        throw new TidemarkError('DAMAGED_BLOCK', `pack ${pack} is missing`, { why: 'its pack is missing' });
      },
      close: async () => undefined,
    },
    disk: { sizeBytes: BLOCK, blockSize: BLOCK },
    creditBytes: 100,
    work: new LaneWork(),
  });
  session.receive({ type: 'get', window: 0 });
  return { ended, asked, told };
}

test.each([
  ['once', ['old', 'new'], ['new']],
  ['and again', ['old', 'new', 'newer'], ['newer']],
])('is asked for again, %s, and read where it is now', async (_, packs, packsThere) => {
  const places = [...packs];
  const { ended, asked, told } = sessionOf(packs, packsThere);
  expect(await ended).toEqual(['entries', 'data', 'windowDone']);
  expect(asked).toEqual(places);
  expect(told[0]).toEqual({
    block: 0,
    pack: 'old',
    code: 'DAMAGED_BLOCK',
    message: 'pack old is missing',
    details: { why: 'its pack is missing' },
  });
});

test('is damaged when it is nowhere', async () => {
  const { ended, asked } = sessionOf(['old', 'new'], []);
  expect(await ended).toMatchObject({ code: 'DAMAGED_BLOCK', message: 'it is nowhere' });
  expect(asked).toEqual(['old', 'new']);
});
