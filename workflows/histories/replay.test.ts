import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { DefaultLogger, Runtime, Worker } from '@temporalio/worker';
import { DeterminismViolationError } from '@temporalio/workflow';
import { beforeAll, describe, expect, it } from 'vitest';
import { workflowTypes } from '../../schema/domain/sessions.ts';
import { keptBundle } from '../../tests/fixtures/workflows/kept-bundle.ts';
import { workflowCode } from '../../workers/runtime/workflow-bundle.ts';
import { historiesFolder, historyOf, type RecordedHistory } from './record.ts';

const names = (await readdir(historiesFolder)).filter((name) => name.endsWith('.json'));
const load = async (name: string): Promise<RecordedHistory> =>
  JSON.parse(await readFile(path.join(historiesFolder, name), 'utf8')) as RecordedHistory;
const typeOf = ({ history }: RecordedHistory): string => {
  const started = history.events[0]!['workflowExecutionStartedEventAttributes'];
  return (started as { workflowType: { name: string } }).workflowType.name;
};

let code: string;
beforeAll(async () => {
  const logger = new DefaultLogger('ERROR');
  Runtime.install({ logger, telemetryOptions: { logging: { forward: {}, filter: 'OFF' } } });
  ({ code } = await keptBundle('shipped', workflowCode));
});

const replay = (recorded: RecordedHistory): Promise<void> =>
  Worker.runReplayHistory({ workflowBundle: { code } }, historyOf(recorded), recorded.workflowId);

describe('recorded histories', () => {
  it.each(names)('%s replays', async (name) => {
    await replay(await load(name));
  });

  it('are there of every workflow', async () => {
    const types = await Promise.all(names.map(async (name) => typeOf(await load(name))));
    expect(new Set(types)).toEqual(new Set(Object.values(workflowTypes)));
  });

  it('do not replay when another step was taken', async () => {
    const recorded = await load('vm-success.json');
    const text = JSON.stringify(recorded).replaceAll('"inspectVm"', '"inspectAnotherVm"');
    expect(text).not.toBe(JSON.stringify(recorded));
    await expect(replay(JSON.parse(text) as RecordedHistory)).rejects.toThrow(DeterminismViolationError);
  });

  it('tell nothing of where they were recorded', async () => {
    for (const name of names) {
      const { history } = await load(name);
      const identities = JSON.stringify(history).match(/"identity":"[^"]*"/g) ?? [];
      expect(new Set(identities), name).toEqual(new Set(['"identity":"worker"']));
    }
  });
});
