import { Client, ScheduleNotFoundError } from '@temporalio/client';
import { NativeConnection } from '@temporalio/worker';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { ResourceRow } from '../../schema/catalog/resources.ts';
import { repositoryId } from '../../schema/domain/ids.ts';
import { JANITOR_ID, maintenanceScheduleId } from '../../schema/domain/maintenance-sessions.ts';
import type { Log } from '../../schema/domain/seams.ts';
import { startTemporalServer, type TemporalServer } from '../../tests/fixtures/cli/test-stack.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { ScheduleKeeper } from './schedules.ts';

let server: TemporalServer;
let connection: NativeConnection;
let client: Client;
let keeper: ScheduleKeeper;
let warnings: object[] = [];
const log: Log = { ...testSeams().log, warn: (_message, fields = {}) => void warnings.push(fields) };

beforeEach(async () => {
  server = await startTemporalServer('memory');
  connection = await NativeConnection.connect({ address: server.address });
  client = new Client({ connection, namespace: 'tidemark' });
  keeper = new ScheduleKeeper(client, log);
  warnings = [];
});
afterEach(async () => {
  await connection?.close();
  await server?.close();
});

type Change = { timeZone?: string; state?: ResourceRow['state'] };
const row = (id: string, { timeZone = 'UTC', state = 'active' }: Change = {}): ResourceRow => ({
  id,
  machineId: 'm',
  slots: 4,
  state,
  reachable: true,
  seenAt: null,
  config: { maintenance: { when: { at: '03:30', timeZone }, verify: { maxBytes: null, maxMs: 1000 } } },
});
const idOf = (name: string): string => maintenanceScheduleId(repositoryId(name));

/** Those of these that are there. */
async function found(...ids: string[]): Promise<string[]> {
  const there: string[] = [];
  for (const id of ids) {
    const isThere = await client.schedule
      .getHandle(id)
      .describe()
      .catch((error: unknown) => {
        if (!(error instanceof ScheduleNotFoundError)) throw error;
        return null;
      });
    if (isThere) there.push(id);
  }
  return there;
}

test('one that Temporal refuses is logged by its name, once, and keeps no other from being made or removed', async () => {
  const all = [JANITOR_ID, ...['a', 'b', 'c'].map(idOf)];
  await keeper.keep([row('c')]);
  expect(await found(...all)).toEqual([JANITOR_ID, idOf('c')]);
  const rows = [row('a', { timeZone: 'europe/berlin' }), row('b', { timeZone: 'Europe/Berlin' })];
  await keeper.keep([...rows, row('c', { state: 'removed' })]);
  expect(await found(...all)).toEqual([JANITOR_ID, idOf('b')]);
  expect(warnings).toEqual([{ schedule: idOf('a'), error: expect.stringContaining('europe/berlin') as string }]);
  await keeper.keep(rows);
  expect(warnings).toHaveLength(1);
  await keeper.keep([row('a', { timeZone: 'Europe/Berlin' })]);
  expect(await found(...all)).toEqual([JANITOR_ID, idOf('a'), idOf('b')]);
});

test('those that somebody deleted, or a Temporal that lost its memory, are made again', async () => {
  const all = [JANITOR_ID, idOf('a'), idOf('b')];
  const rows = [row('a'), row('b'), row('c', { state: 'removed' })];
  await keeper.keep(rows);
  await client.schedule.getHandle(idOf('a')).delete();
  await keeper.lookAfter();
  await keeper.keep(rows);
  expect(await found(...all)).toEqual(all);
  expect(warnings).toEqual([{ schedule: idOf('a') }]);
  await server.kill();
  await server.start();
  expect(await found(...all)).toEqual([]);
  await keeper.lookAfter();
  await keeper.keep(rows);
  expect(await found(...all)).toEqual(all);
  expect(warnings).toHaveLength(4);
});
