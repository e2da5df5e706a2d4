/** A block whose place is no longer what it was when it was asked for. */
import { expect, test } from 'vitest';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { RecordPlace } from '../../../schema/domain/seams.ts';
import type { Message } from '../../../schema/wire/messages.ts';
import type { Wire } from '../wire-session/wire.ts';
import { RestoreSession } from './restore-session.ts';

const BLOCK = 4;
const placeIn = (pack: string): RecordPlace => ({
  pack,
  offset: 64,
  storedLength: BLOCK,
  rawLength: BLOCK,
  codec: 'none',
});

/** `packs`: where the block is said to be, from one question to the next. */
function sessionOf(packs: string[], packsThere: string[]) {
  const asked: string[] = [];
  let end = (_: unknown): void => undefined;
  const ended = new Promise<unknown>((resolve) => (end = resolve));
  const sent: string[] = [];
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
      end: async () => undefined,
    },
    records: {
      read: async ({ pack }) => {
        asked.push(pack);
        if (packsThere.includes(pack)) return Buffer.from('data');
        throw new TidemarkError('DAMAGED_BLOCK', `pack ${pack} is missing`);
      },
      close: async () => undefined,
    },
    disk: { sizeBytes: BLOCK, blockSize: BLOCK },
    creditBytes: 100,
  });
  session.receive({ type: 'get', window: 0 });
  return { ended, asked };
}

test('is asked for again, once, and read where it is now', async () => {
  const { ended, asked } = sessionOf(['old', 'new'], ['new']);
  expect(await ended).toEqual(['entries', 'data', 'windowDone']);
  expect(asked).toEqual(['old', 'new']);
});

test.each([
  ['is where it was', ['old', 'old', 'new'], ['old']],
  ['is gone again', ['old', 'new', 'newer'], ['old', 'new']],
])('is damaged when it %s', async (_, packs, places) => {
  const { ended, asked } = sessionOf(packs, ['newer']);
  expect(await ended).toMatchObject({ code: 'DAMAGED_BLOCK' });
  expect(asked).toEqual(places);
});
