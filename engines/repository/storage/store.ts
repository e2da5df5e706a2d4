/**
 * Store: the other half, for what is finished and never changes: closed packs and manifests. Here a folder beside the
 * staging area; an object store fits behind it as well. Nobody above knows which.
 *
 * The contract, for every implementation and decorator (`contract.ts` tests it):
 * - Names are relative, parts joined by "/"; what lies under a name never changes. There are no folders.
 * - Atomic: an object is there whole or not at all, at every moment and after every crash. A move to the trash or back
 *   may, after a crash, show it in both places; never in none.
 * - Ordered: a call that resolved comes before one made afterwards, and is durable: name, content, absence.
 * - Idempotent: all calls. A `put` whose staging file is gone and whose object is there is complete; removing or
 *   moving what is not there is done. `putIfAbsent` said again finds what the first try may have put: compare.
 * - Errors: as in `staging.ts`. A failed call has changed nothing, or is completed by its repeat.
 *
 * Over an object store: `put` = upload, then remove the staging file; `putIfAbsent` = a conditional put; `open` and `read`
 * = ranged gets; `list` = a listing by prefix; trash = copy and delete; `confirm` = nothing; `protect` = an object lock.
 */

/** Bytes under a name, opened for reading. Reads on, or fails, when the name goes meanwhile; never gives other bytes. */
export type StoredFile = {
  lengthBytes(): Promise<number>;
  /** Fills `into` from `position` on; bytes read: fewer only at the end. Reads may run side by side. */
  read(into: Uint8Array, position: number): Promise<number>;
  close(): Promise<void>;
};

/** `name`: where it was, and goes back to. */
export type TrashedObject = { epoch: number; name: string };

export type Store = {
  /** Takes over a finished file of the staging area, whole. Afterwards it is no longer there. */
  put(name: string, stagingName: string): Promise<void>;
  /** A small object. False when there is such a name; then nothing changed, and what is there is durable. */
  putIfAbsent(name: string, text: string): Promise<boolean>;
  /** Makes durable what a failed or unknown try left under this name. */
  confirm(name: string): Promise<void>;
  /** Null when there is none. */
  open(name: string): Promise<StoredFile | null>;
  /** Null when there is none. REPOSITORY_CORRUPT when it is longer than `maxBytes`. */
  readText(name: string, maxBytes: number): Promise<string | null>;
  /** Names of all objects below a prefix that ends where a part ends, sorted. */
  list(prefix: string): Promise<string[]>;
  /** For good. */
  remove(name: string): Promise<void>;
  /** Out of the way, to be brought back or removed later. */
  moveToTrash(object: TrashedObject): Promise<void>;
  restoreFromTrash(object: TrashedObject): Promise<void>;
  removeFromTrash(object: TrashedObject): Promise<void>;
  /** By epoch, then name. */
  listTrash(): Promise<TrashedObject[]>;
  /** Null when there is none. */
  openTrashed(object: TrashedObject): Promise<StoredFile | null>;
  /**
   * From here on (or, `on` false, no longer) these objects cannot be changed, moved or removed, by us or anybody but the
   * administrator of the machine. A help, no promise: false where there is no such thing, or where we may not.
   */
  protect(names: readonly string[], on: boolean): Promise<boolean>;
  /** Null where there is no limit. */
  freeBytes(): Promise<number | null>;
  /** Where that is, for people. */
  locate(name: string): string;
};
