/** Frames that a target cannot take. */
import { blake3 } from '@napi-rs/blake-hash';
import { expect, test } from 'vitest';
import { encodeMessage } from '../../schema/wire/messages.ts';
import { MIB, moverWorld } from '../../tests/fixtures/mover/mover-world.ts';
import { backupHello } from '../../tests/fixtures/mover/raw-client.ts';

const world = moverWorld();

test('a damaged payload is asked for three times, then BAD_PAYLOAD; a good one in between is taken', async () => {
  await world.start();
  const block = Buffer.alloc(MIB, 'sound');
  for (const damaged of [2, 4]) {
    world.repository.windows.clear();
    world.repository.places.clear();
    const client = await world.laneClient();
    client.send(backupHello(MIB, MIB));
    await client.next('welcome');
    client.send(encodeMessage({ type: 'offer', window: 0, firstBlock: 0, classes: ['data'], digests: blake3(block) }));
    expect(await client.next('answer')).toMatchObject({ answers: ['want'] });
    const head = { type: 'data', window: 0, block: 0, codec: 'none', rawLength: MIB } as const;
    for (let attempt = 1; attempt <= damaged; attempt += 1) {
      client.send(Buffer.concat([encodeMessage(head, MIB), Buffer.alloc(MIB, 'damaged')]));
      if (attempt <= 3) expect(await client.next('want')).toMatchObject({ reason: 'damaged', attempt });
    }
    if (damaged > 3) {
      expect(await client.next('error')).toMatchObject({ code: 'BAD_PAYLOAD' });
      await client.closed;
      continue;
    }
    client.send(Buffer.concat([encodeMessage(head, MIB), block]));
    const sums = { notReadBytes: 0, unallocatedBytes: 0, zeroBytes: 0, dataBytes: MIB };
    client.send(encodeMessage({ type: 'windowEnd', window: 0, sums }));
    expect(await client.next('ack')).toMatchObject({ firstWindow: 0, count: 1 });
    client.send(encodeMessage({ type: 'bye' }));
    await client.closed;
  }
});

test('slow, cut, oversized and misplaced frames end in errors that name the field', async () => {
  await world.start({ timeouts: { helloMs: 1000, frameMs: 300 } });
  const silent = await world.laneClient();
  expect(await silent.next('error')).toMatchObject({
    code: 'UNREACHABLE',
    message: expect.stringContaining('HELLO'),
  });
  const slow = await world.laneClient();
  slow.send(backupHello(MIB, MIB).subarray(0, 30));
  expect(await slow.next('error')).toMatchObject({ message: expect.stringContaining('frame did not come in time') });
  const early = await world.laneClient();
  early.send(encodeMessage({ type: 'get', window: 0 }));
  expect(await early.next('error')).toMatchObject({ message: expect.stringContaining('allowed is HELLO') });
  const wrong = await world.laneClient();
  wrong.send(backupHello(MIB, MIB));
  await wrong.next('welcome');
  wrong.send(encodeMessage({ type: 'offer', window: 1, firstBlock: 0, classes: ['zero'], digests: Buffer.alloc(0) }));
  expect(await wrong.next('error')).toMatchObject({ message: expect.stringContaining('OFFER window') });
  const lying = await world.laneClient();
  lying.send(backupHello(MIB, MIB));
  await lying.next('welcome');
  lying.send(encodeMessage({ type: 'offer', window: 0, firstBlock: 0, classes: ['zero'], digests: Buffer.alloc(0) }));
  const sums = { notReadBytes: 0, unallocatedBytes: 0, zeroBytes: 1, dataBytes: MIB - 1 };
  lying.send(encodeMessage({ type: 'windowEnd', window: 0, sums }));
  expect(await lying.next('error')).toMatchObject({ message: expect.stringContaining('WINDOW_END zeroBytes') });
  expect(world.repository.windows.size).toBe(0);
});
