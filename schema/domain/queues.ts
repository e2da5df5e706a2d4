/** Names of the Temporal task queues (control-plane decisions). Clean-up never queues behind work. */
import type { HostId, ProxyId, RepositoryId } from './ids.ts';

export const controlQueue = 'control';
/** Holds the waiters for resources: its slots are many and idle. */
export const controlWaitQueue = 'control.wait';
/** Block transfer; slots = 2 x lease limit + 4. */
export const proxyQueue = (id: ProxyId): string => `proxy.${id}`;
export const proxyCtlQueue = (id: ProxyId): string => `proxy.${id}.ctl`;
/** Scripts in guests: long, and never in the way of a thaw. */
export const hostGuestQueue = (id: HostId): string => `host.${id}.guest`;
/** Inspect, checkpoint, release, reference points. */
export const hostCtlQueue = (id: HostId): string => `host.${id}.ctl`;
/** Undo verbs. */
export const hostUndoQueue = (id: HostId): string => `host.${id}.undo`;
/** Long work on what is kept: never in the way of the verbs of sessions. */
export const repositoryQueue = (id: RepositoryId): string => `repository.${id}`;
export const repositoryCtlQueue = (id: RepositoryId): string => `repository.${id}.ctl`;

/** Who serves a queue, for people: "host h1", "proxy p1", "repository main", "the control worker". */
export function machineOfQueue(queue: string): string {
  const [kind, id] = queue.split('.');
  return kind === 'control' || id === undefined ? 'the control worker' : `${kind} ${id}`;
}
