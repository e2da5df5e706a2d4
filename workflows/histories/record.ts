/**
 * Keeps histories of a running stack as files that every later version must be able to replay:
 *
 *     node workflows/histories/record.ts --address 127.0.0.1:7233 --namespace tidemark NAME=WORKFLOW-ID...
 *
 * NAME says what the history pins; it becomes NAME.json beside this file. Who recorded it, and where, is taken out.
 */
import { writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Client, Connection } from '@temporalio/client';
import proto from '@temporalio/proto';

const { History } = proto.temporal.api.history.v1;

/**
 * One file of this folder. Events as the protocol's own library writes them as JSON: the SDK's functions for the JSON of
 * Temporal's other tools fail where npm has put more than one copy of that library.
 */
export type RecordedHistory = { workflowId: string; history: { events: Record<string, unknown>[] } };

/** What the SDK replays. */
export const historyOf = ({ history }: RecordedHistory): proto.temporal.api.history.v1.History =>
  History.fromObject(history);

export const historiesFolder = import.meta.dirname;

export async function recordHistory(client: Client, workflowId: string, name: string): Promise<string> {
  const history = await client.workflow.getHandle(workflowId).fetchHistory();
  const { events } = History.fromObject(history).toJSON() as RecordedHistory['history'];
  const file = path.join(historiesFolder, `${name}.json`);
  // A line per event: what a new recording changes can be read.
  const lines = events.map((event) => JSON.stringify(event, withoutTraces)).join(',\n');
  await writeFile(file, `{"workflowId":${JSON.stringify(workflowId)},"history":{"events":[\n${lines}\n]}}\n`);
  return file;
}

/** Neither processes nor places nor stack traces: replay needs none of them. */
function withoutTraces(key: string, value: unknown): unknown {
  if (key === 'identity') return 'worker';
  if (key === 'stackTrace') return '';
  if (key !== 'data' || typeof value !== 'string') return value;
  const text = Buffer.from(value, 'base64').toString();
  return Buffer.from(withoutPlaces(text)).toString('base64');
}

const escaped = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
const places: [RegExp, string][] = [
  [new RegExp(`${escaped(tmpdir())}/[^/"\\\\]+`, 'g'), '/state'],
  [new RegExp(escaped(homedir()), 'g'), '/home'],
];
const withoutPlaces = (text: string): string =>
  places.reduce((clean, [place, instead]) => clean.replaceAll(place, instead), text);

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { address: { type: 'string' }, namespace: { type: 'string', default: 'tidemark' } },
  });
  const wanted = positionals.map((text) => /^([a-z0-9-]+)=(.+)$/.exec(text));
  if (!values.address || wanted.length === 0 || wanted.includes(null)) {
    console.error('usage: record.ts --address HOST:PORT [--namespace NAMESPACE] NAME=WORKFLOW-ID...');
    process.exitCode = 2;
    return;
  }
  const connection = await Connection.connect({ address: values.address });
  const client = new Client({ connection, namespace: values.namespace });
  for (const match of wanted) console.log(await recordHistory(client, match![2]!, match![1]!));
  await connection.close();
}

if (import.meta.main) await main();
