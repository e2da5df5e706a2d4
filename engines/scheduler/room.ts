/** The free slots, and the free room of repositories, during one pass. */
import { formatBytes } from '../../schema/domain/figures.ts';
import type { Reason } from '../../schema/domain/hypervisor.ts';
import type { ResourceRef, ResourceState } from '../../schema/domain/scheduling.ts';

/** Why a resource gives no slot or room now. `onlySlots`: it will when somebody gives some back. */
export type Lack = { reason: Reason; onlySlots: boolean };
export type Room = {
  stateOf(ref: ResourceRef): ResourceState | undefined;
  /** All of one kind, by id. */
  all(kind: ResourceState['kind']): ResourceState[];
  /** null: a slot is free. */
  lack(ref: ResourceRef): Lack | null;
  take(ref: ResourceRef): void;
  /** Sets a free slot aside for the rest of the pass, if there is one. */
  hold(ref: ResourceRef): void;
  /**
   * Whether so many bytes fit beside what is reserved. Estimates only put sessions one after another: a session that has
   * the repository to itself always fits, and the repository says what does not.
   */
  lackOfSpace(repositoryId: string, bytes: number): Lack | null;
  reserveSpace(repositoryId: string, bytes: number): void;
  /** Nobody else gets any for the rest of the pass. */
  holdSpace(repositoryId: string): void;
};

const keyOf = (ref: ResourceRef): string => `${ref.kind} ${ref.id}`;

export function createRoom(resources: readonly ResourceState[]): Room {
  const states = new Map(resources.map((each) => [keyOf(each), { ...each }]));
  const held = new Map<string, number>();
  const heldOf = (ref: ResourceRef): number => held.get(keyOf(ref)) ?? 0;

  function stateOf(ref: ResourceRef): ResourceState | undefined {
    const known = states.get(keyOf(ref));
    if (known || ref.kind !== 'vm') return known;
    const lock: ResourceState = { kind: 'vm', id: ref.id, limit: 1, used: 0, reachable: true, machineId: null };
    states.set(keyOf(ref), lock);
    return lock;
  }

  function lack(ref: ResourceRef): Lack | null {
    const state = stateOf(ref);
    const name = `${ref.kind} ${ref.id}`;
    if (!state) return no('unknown', `${name} is not in the site`);
    if (ref.kind === 'vm') return state.used < 1 ? null : no('vm-locked', `VM ${ref.id} is in another session`);
    if (state.limit === 0) return no('drained', `${name} takes no new tasks`);
    if (!state.reachable) return no('unreachable', `${name} does not answer`);
    if (state.used + heldOf(ref) < state.limit) return null;
    const kept = state.used < state.limit ? ', the rest is kept for an earlier request' : '';
    const message = `${name} has ${state.used} of ${state.limit} tasks${kept}`;
    return { reason: { code: 'no-slot', message }, onlySlots: true };
  }

  const heldSpace = new Set<string>();
  const repository = (id: string): ResourceState | undefined => stateOf({ kind: 'repository', id });

  function lackOfSpace(id: string, bytes: number): Lack | null {
    const { freeBytes, reservedBytes = 0 } = repository(id) ?? {};
    if (bytes <= 0 || freeBytes === undefined) return null;
    if (!heldSpace.has(id) && (reservedBytes === 0 || freeBytes - reservedBytes >= bytes)) return null;
    const message =
      `repository ${id} has ${formatBytes(freeBytes)} free, ${formatBytes(reservedBytes)} are reserved for sessions ` +
      `in work, and this one may need ${formatBytes(bytes)}`;
    return { reason: { code: 'no-space', message }, onlySlots: true };
  }

  return {
    stateOf,
    lack,
    lackOfSpace,
    holdSpace: (id) => void heldSpace.add(id),
    reserveSpace(id, bytes) {
      const state = repository(id);
      if (state) state.reservedBytes = (state.reservedBytes ?? 0) + bytes;
    },
    all: (kind) => [...states.values()].filter((state) => state.kind === kind).sort((a, b) => (a.id < b.id ? -1 : 1)),
    take(ref) {
      const state = stateOf(ref);
      if (state) state.used += 1;
    },
    hold(ref) {
      if (lack(ref) === null) held.set(keyOf(ref), heldOf(ref) + 1);
    },
  };
}

const no = (code: string, message: string): Lack => ({ reason: { code, message }, onlySlots: false });
