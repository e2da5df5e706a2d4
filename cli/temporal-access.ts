/** Temporal for commands. Loads its client: import it late. */
import path from 'node:path';
import { Client, Connection, WorkflowNotFoundError } from '@temporalio/client';
import { defaultPayloadConverter, type Payload } from '@temporalio/common';
import type { StackFile } from '../engines/stack/stack-file.ts';
import { TidemarkError } from '../schema/domain/errors.ts';
import { type TemporalAddress, temporalTlsIn } from '../workers/runtime/config.ts';
import { loadPayloadCodec } from '../workers/runtime/payload-codec.ts';
import { readTemporalTls } from '../workers/runtime/temporal-tls.ts';

const CONNECT_LIMIT_MS = 5000;
/** Of one call: a person waits for it. */
const CALL_LIMIT_MS = 3000;

/** A server on this machine that was away is back soon; the library's own pauses grow to minutes. */
const RECONNECT = { 'grpc.initial_reconnect_backoff_ms': 200, 'grpc.max_reconnect_backoff_ms': 1000 };

/** UNREACHABLE when the server does not answer, at the beginning or in a call made through `soon`. */
export async function withTemporal<T>(stack: StackFile, work: (client: Client) => Promise<T>): Promise<T> {
  const { address, namespace, tls } = temporalOf(stack);
  // The state folder of this stack, whatever option or variable named it.
  const configFolder = path.dirname(stack.database.passwordFile);
  const certificates = tls ? { tls: await readTemporalTls(tls, configFolder) } : {};
  const options = { address, connectTimeout: CONNECT_LIMIT_MS, channelArgs: RECONNECT, ...certificates };
  const connection = await Connection.connect(options).catch((error: unknown) => {
    throw new TidemarkError('UNREACHABLE', `Temporal does not answer at ${address}`, { address }, error);
  });
  try {
    const codec = await loadPayloadCodec(path.join(configFolder, 'payload-keys'), process.env);
    const converter = codec ? { dataConverter: { payloadCodecs: [codec] } } : {};
    return await work(new Client({ connection, namespace, ...converter }));
  } catch (error) {
    if (error instanceof TidemarkError || !isAway(error)) throw error;
    throw new TidemarkError('UNREACHABLE', `Temporal does not answer at ${address}`, { address }, error);
  } finally {
    await connection.close();
  }
}

/** The stack's own, unless the environment names another way to it, like one through a TLS front. */
export function temporalOf({ temporal }: StackFile): TemporalAddress {
  const address = process.env['TIDEMARK_TEMPORAL_ADDRESS'] ?? temporal.address;
  return { address, namespace: temporal.namespace, tls: temporalTlsIn(process.env) };
}

const grpcCodes = { deadlineExceeded: 4, failedPrecondition: 9, unavailable: 14 } as const;

/** Also as the cause of the client's own errors. */
function hasGrpcCode(error: unknown, ...codes: number[]): boolean {
  for (let at = error; at instanceof Error; at = at.cause) {
    const { code } = at as { code?: unknown };
    if (typeof code === 'number' && codes.includes(code)) return true;
  }
  return false;
}

export const isAway = (error: unknown): boolean =>
  hasGrpcCode(error, grpcCodes.deadlineExceeded, grpcCodes.unavailable);
/** Of a query: no worker answers it, in time or at all. A workflow that has no such query yet is another matter. */
export const isUnanswered = (error: unknown): boolean =>
  isAway(error) || hasGrpcCode(error, grpcCodes.failedPrecondition);

/** One call with a limit: a server that is away must not hold a person for long. */
export const soon = <T>(client: Client, call: () => Promise<T>): Promise<T> =>
  client.withDeadline(Date.now() + CALL_LIMIT_MS, call);

/** Where a person looks at a workflow. */
export function workflowUrl(stack: StackFile, workflowId: string, runId?: string): string {
  const workflow = `${stack.temporal.uiUrl}/${encodeURIComponent(workflowId)}`;
  return runId === undefined ? workflow : `${workflow}/${runId}/history`;
}

/** An activity that is not done yet, as the server describes it. Times: milliseconds since the epoch. */
export type PendingActivity = {
  type: string;
  /** Task queue; null where the server does not say. */
  queue: string | null;
  attempt: number;
  /** A worker has it; else it waits for one, or for its next attempt. */
  isStarted: boolean;
  scheduledAt: number | null;
  heartbeatAt: number | null;
  /** Last heartbeat's detail. */
  heartbeat: unknown;
  lastFailure: string | null;
};

export type WorkflowPicture = {
  workflowId: string;
  runId: string;
  /** RUNNING, COMPLETED, FAILED, CANCELLED, TERMINATED, TIMED_OUT, ... */
  status: string;
  pending: PendingActivity[];
};

type RawDescription = Awaited<ReturnType<ReturnType<Client['workflow']['getHandle']>['describe']>>['raw'];
type RawActivity = NonNullable<RawDescription['pendingActivities']>[number];
type Timestamp = NonNullable<RawActivity['scheduledTime']>;

const millisecondsOf = (time: Timestamp | null | undefined): number | null =>
  time ? Number(time.seconds ?? 0) * 1000 + (time.nanos ?? 0) / 1_000_000 : null;
/** PENDING_ACTIVITY_STATE_STARTED. */
const STARTED = 2;

/** What the server keeps, through the codecs of this client. */
async function decoded(client: Client, payload: Payload): Promise<unknown> {
  let [plain] = [payload];
  for (const codec of client.options.loadedDataConverter.payloadCodecs.toReversed())
    [plain] = (await codec.decode([plain])) as [Payload];
  return defaultPayloadConverter.fromPayload(plain);
}

async function failureText(client: Client, failure: RawActivity['lastFailure']): Promise<string | null> {
  const { encodedAttributes, message } = failure ?? {};
  if (!encodedAttributes) return message ?? null;
  return ((await decoded(client, encodedAttributes)) as { message: string }).message;
}

async function pendingOf(client: Client, raw: RawActivity): Promise<PendingActivity> {
  const payload = raw.heartbeatDetails?.payloads?.[0];
  return {
    type: raw.activityType?.name ?? 'activity',
    queue: raw.activityOptions?.taskQueue?.name ?? null,
    attempt: raw.attempt ?? 1,
    isStarted: (raw.state as number) === STARTED,
    scheduledAt: millisecondsOf(raw.scheduledTime),
    heartbeatAt: millisecondsOf(raw.lastHeartbeatTime),
    heartbeat: payload ? await decoded(client, payload) : null,
    lastFailure: await failureText(client, raw.lastFailure),
  };
}

/** Null: the server does not know it. Rejects when the server does not answer in time. */
export async function describeWorkflow(client: Client, workflowId: string): Promise<WorkflowPicture | null> {
  try {
    const described = await soon(client, () => client.workflow.getHandle(workflowId).describe());
    const raws = described.raw.pendingActivities ?? [];
    const pending = await Promise.all(raws.map((raw) => pendingOf(client, raw)));
    return { workflowId, runId: described.runId, status: described.status.name, pending };
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return null;
    throw error;
  }
}
