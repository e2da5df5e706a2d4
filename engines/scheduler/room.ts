/** The free slots during one pass. */
import type { Reason } from '../../schema/domain/hypervisor.ts';
import type { ResourceRef, ResourceState } from '../../schema/domain/scheduling.ts';

/** Why a resource gives no slot now. `onlySlots`: it will when somebody gives one back. */
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

  return {
    stateOf,
    lack,
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
