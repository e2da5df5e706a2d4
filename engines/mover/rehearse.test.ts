import { stat } from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { restorePointId, runKey } from '../../schema/domain/ids.ts';
import { moverWorld } from '../../tests/fixtures/mover/mover-world.ts';
import { rehearse } from './rehearse.ts';

const world = moverWorld();

test('rehearsal shakes hands; sockets are private', async () => {
  const { endpoint } = await world.start();
  const of = {
    endpoint,
    restorePointId: restorePointId('0123456789abcdef0123456789abcdef'),
    run: runKey('abcdef012345'),
  };
  expect(await rehearse(of)).toEqual({ protocolVersion: 1, laneCount: 2 });
  const socket = world.socketOf();
  expect((await stat(socket)).mode & 0o777).toBe(0o600);
  expect((await stat(path.dirname(socket))).mode & 0o777).toBe(0o700);
  await expect(rehearse({ ...of, endpoint: { unix: `${socket}.none` } })).rejects.toMatchObject({
    code: 'UNREACHABLE',
  });
});
