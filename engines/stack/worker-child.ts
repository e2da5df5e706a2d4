/** The keeper and the workers: Node processes that report over IPC and end by themselves when it closes. */
import type { WorkerCaps } from '../../schema/domain/configuration.ts';
import type { ChildSpec } from './child.ts';
import type { StackLayout } from './layout.ts';
import type { StackConnections } from './stack-file.ts';
import { capped } from './worker-caps.ts';

export const workerNames = ['keeper', 'control', 'host', 'proxy', 'repository'] as const;
export type WorkerName = (typeof workerNames)[number];

/** Longer than the bound from freeze to thaw, so that a worker can end what it has begun. */
const WORKER_GRACE_MS = 20_000;
/** What V8 keeps for young objects grows by half a hundred MiB per thread at a busy moment, and hardly makes it faster. */
const NODE_FLAGS = ['--max-semi-space-size=16'];

/** Only `control` learns where the catalog is, and serves the codec: the others have no business with them. */
function environmentOf(name: WorkerName, layout: StackLayout, connections: StackConnections): Record<string, string> {
  const { temporal, database } = connections;
  const common = {
    TIDEMARK_STATE: layout.folder,
    TIDEMARK_TEMPORAL_ADDRESS: temporal.address,
    TIDEMARK_TEMPORAL_NAMESPACE: temporal.namespace,
  };
  if (name !== 'control') return common;
  return {
    ...common,
    ...(temporal.codecUrl === null ? {} : { TIDEMARK_CODEC_URL: temporal.codecUrl, TIDEMARK_UI_URL: temporal.uiUrl }),
    TIDEMARK_DATABASE_SOCKET: database.socket,
    TIDEMARK_DATABASE_USER: database.user,
    TIDEMARK_DATABASE_PASSWORD_FILE: database.passwordFile,
    TIDEMARK_DATABASE_NAME: database.name,
  };
}

/** `entry`: absolute path of the worker's TypeScript file. */
export function workerChild(
  name: WorkerName,
  node: string,
  entry: string,
  layout: StackLayout,
  connections: StackConnections,
  caps: WorkerCaps | null,
): ChildSpec {
  return { ...specOf(name, node, entry, caps), environment: environmentOf(name, layout, connections) };
}

/** On a machine without a stack: where Temporal is, its machine.json says. */
export const remoteWorkerChild = (name: WorkerName, node: string, entry: string, layout: StackLayout): ChildSpec => ({
  ...specOf(name, node, entry, null),
  environment: { TIDEMARK_STATE: layout.folder },
});

const specOf = (
  name: WorkerName,
  node: string,
  entry: string,
  caps: WorkerCaps | null,
): Omit<ChildSpec, 'environment'> => ({
  name,
  ...capped(node, [...NODE_FLAGS, entry], caps),
  readiness: { kind: 'message' },
  graceMs: WORKER_GRACE_MS,
});
