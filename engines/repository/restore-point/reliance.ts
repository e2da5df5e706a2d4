/**
 * What work under way relies on before a ledger or a manifest says so. A collection asks for it when it begins, and is
 * told of all that comes while it runs: so it takes nothing that somebody was told is there.
 */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { DiskMap } from './page-reader.ts';

export type Reliance = {
  /** Said of each record id that is asked for, promised or written, whatever the answer. */
  touch(id: Uint8Array): void;
  /** What `digests` gives, whenever it is asked, stays until the result is called. */
  pin(digests: () => Iterable<Uint8Array>): () => void;
  /** A map and all that it needs stay until the result is called. `restoring`: by a restore of that point. */
  hold(map: DiskMap, restoring?: RestorePointId): () => void;
  isBeingRestored(id: RestorePointId): boolean;
  pinned(): Iterable<Uint8Array>;
  held(): Iterable<DiskMap>;
  /** From here on `witness` is told what is touched, until the result is called. One at a time. */
  watch(witness: (id: Uint8Array) => void): () => void;
  isWatched(): boolean;
};

export function createReliance(): Reliance {
  const pins = new Set<() => Iterable<Uint8Array>>();
  const holds = new Set<{ map: DiskMap; restoring: RestorePointId | null }>();
  let witness: ((id: Uint8Array) => void) | null = null;
  return {
    touch: (id) => witness?.(id),
    pin: (digests) => entered(pins, digests),
    hold: (map, restoring) => entered(holds, { map, restoring: restoring ?? null }),
    isBeingRestored: (id) => [...holds].some((hold) => hold.restoring === id),
    pinned: function* () {
      for (const digests of pins) yield* digests();
    },
    held: function* () {
      for (const { map } of holds) yield map;
    },
    watch: (by) => {
      witness = by;
      return () => {
        witness = null;
      };
    },
    isWatched: () => witness !== null,
  };
}

function entered<T>(set: Set<T>, value: T): () => void {
  set.add(value);
  return () => void set.delete(value);
}
