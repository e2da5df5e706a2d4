/** What the other end may not say is refused by name. */
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Message } from '../../schema/wire/messages.ts';
import { orderOf } from '../../tests/fixtures/mover/disks.ts';
import { MIB, moverWorld } from '../../tests/fixtures/mover/mover-world.ts';
import { backupHello, type RawClient } from '../../tests/fixtures/mover/raw-client.ts';
import { restoreWelcome, type TestServer, wireServer } from '../../tests/fixtures/mover/test-servers.ts';

const world = moverWorld();

describe('versions', () => {
  test('the highest that both ends speak is chosen; a client that speaks none of ours is refused by name', async () => {
    await world.start();
    const greet = async (lowestVersion: number, highestVersion: number): Promise<RawClient> => {
      const client = await world.laneClient();
      client.send(backupHello(MIB, MIB, { lowestVersion, highestVersion }));
      return client;
    };
    expect(await (await greet(0, 7)).next('welcome')).toMatchObject({ version: 1 });
    for (const [lowest, highest, said] of [
      [0, 0, 'HELLO versions is 0, allowed is 1'],
      [2, 7, 'HELLO versions is 2 to 7, allowed is 1'],
    ] as const) {
      const refused = await greet(lowest, highest);
      const message = expect.stringContaining(said) as string;
      expect(await refused.next('error')).toMatchObject({ code: 'PROTOCOL_ERROR', message });
      await refused.closed;
    }
  });

  test('a target that chooses a version that was not offered is refused by name', async () => {
    const server = world.kept(
      await wireServer(path.join(world.folder, 'newer'), () => [{ ...restoreWelcome, version: 2 }]),
    );
    const order = await world.restoreOrder({ unix: server.path });
    await expect(world.restorePool(1).restoreDisk(order)).rejects.toMatchObject({
      code: 'PROTOCOL_ERROR',
      message: expect.stringContaining('WELCOME version is 2, allowed is 1') as string,
    });
  });
});

describe('a target that lies', () => {
  const welcome = { ...restoreWelcome, blockSize: MIB / 4, creditBytes: 4 * MIB } as Message;
  const shortAnswer: Message = { type: 'answer', window: 0, firstBlock: 0, answers: ['have'] };
  const answer: Message = { ...shortAnswer, answers: ['have', 'have', 'have', 'have'] };
  const wrongAck: Message = { type: 'ack', firstWindow: 3, count: 1, busyMs: 0 };
  const wrongAnswer: Message = { type: 'answer', window: 7, firstBlock: 0, answers: ['have', 'have', 'have', 'have'] };
  const lies: [string, { hello: Message; offer?: Message; windowEnd?: Message }][] = [
    ['grants less credit than a block may need', { hello: { ...welcome, creditBytes: 1000 } as Message }],
    ['says another size', { hello: { ...welcome, sizeBytes: 2 * MIB } as Message }],
    ['answers fewer blocks than were offered', { hello: welcome, offer: shortAnswer }],
    ['answers for another window', { hello: welcome, offer: wrongAnswer }],
    ['acknowledges another window', { hello: welcome, offer: answer, windowEnd: wrongAck }],
  ];
  test.each(lies)('%s: refused', async (_name, answers) => {
    const all: Partial<Record<Message['type'], Message>> = { windowEnd: { ...wrongAck, firstWindow: 0 }, ...answers };
    const reply = (asked: Message): Message[] => [all[asked.type]].filter((message) => message !== undefined);
    const server: TestServer = world.kept(await wireServer(path.join(world.folder, 'liar'), reply));
    const file = await world.randomDisk('disk', MIB);
    const order = orderOf({ disk: { file }, sizeBytes: MIB, blockSize: 256 * 1024, endpoint: { unix: server.path } });
    await expect(world.sourcePool(1).transfer({ ...order, patienceMs: 5000 })).rejects.toMatchObject({
      code: 'PROTOCOL_ERROR',
    });
  });
});
