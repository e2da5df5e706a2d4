/**
 * Staging: the local half of a repository's storage, where everything lives that still changes: open packs, heads, ledgers,
 * tombstones, repository.json. Always a folder of this machine; what is finished and immutable goes on to the Store.
 *
 * The contract, for every implementation and decorator (`contract.ts` tests it):
 * - Names are relative, parts joined by "/"; folders appear when a file is made in them. A last part that begins with a
 *   dot is temporary, is nobody's, and may be removed by whoever meets it.
 * - Atomic: `replace` and `putIfAbsent` show the old or the new text whole, at every moment and after every crash; an
 *   append is there whole or, when it throws, not at all (after a crash: any part of what was not synced).
 * - Ordered: a call that resolved comes before one made afterwards. What `sync`, `replace`, `putIfAbsent`, `confirm`
 *   resolved for is durable, name and content; nothing else is. `remove` is not: a crash may bring the file back.
 * - Idempotent: `replace`, `confirm`, `remove`. `putIfAbsent` said again finds what the first try may have put: compare.
 * - Errors: REPOSITORY_FULL when there is no room, STORAGE_ERROR else, naming the place; with an `errno` of those in
 *   `isPassing` it may succeed when it is said again at once, except for `sync` and `finish`, which are final. All others
 *   are permanent until somebody does something about it. A failed call has changed nothing, or is completed by its repeat.
 */
import type { StoredFile } from './store.ts';

export type Staging = {
  /** Makes the area where there is none. REPOSITORY_NOT_ONE when something else is in its place. */
  prepare(): Promise<void>;
  /** Takes the lock of that name for this process, until the result is called or the process ends. REPOSITORY_IN_USE. */
  lock(name: string): () => void;
  /** Else they are made with the first file in them. */
  makeFolder(name: string): Promise<void>;
  /** A new file. For lane threads: synchronous, as their appends are. */
  createSync(name: string): StagingFile;
  /** The file to append to, made when there is none. */
  openFile(name: string): Promise<StagingFile>;
  /** For reading; null when there is none. */
  open(name: string): Promise<StoredFile | null>;
  /** Null when there is none. REPOSITORY_CORRUPT when it is longer than `maxBytes`. */
  readText(name: string, maxBytes: number): Promise<string | null>;
  /** For lane threads. */
  readTextSync(name: string): string;
  replace(name: string, text: string): Promise<void>;
  /** False when there is such a name; then nothing changed, and what is there is durable. */
  putIfAbsent(name: string, text: string): Promise<boolean>;
  /** Makes durable what a failed or unknown try left under this name. */
  confirm(name: string): Promise<void>;
  /** What lies directly in a folder ('' = the area): files and folders, sorted; none when there is no such folder. */
  list(folder: string, options?: { temporary?: boolean }): Promise<string[]>;
  /** A file, or a folder with all that is in it. */
  remove(name: string): Promise<void>;
  freeBytes(): Promise<number>;
  /** Where that is, for people. */
  locate(name: string): string;
};

/** A file that grows at its end, with one writer. */
export type StagingFile = {
  readonly name: string;
  lengthBytes(): number;
  /** Offset of the first byte. Blocks for at most 1 MiB at a time. */
  appendSync(...parts: Uint8Array[]): number;
  append(bytes: Uint8Array): Promise<number>;
  /** Fills `into` from `position` on; bytes read: fewer only at the end. */
  read(into: Uint8Array, position: number): Promise<number>;
  /** Shortens it; not durable before the next `sync`. */
  cutBack(lengthBytes: number): Promise<void>;
  /**
   * What was appended before the call is durable, the file's name too. When it fails nobody knows what of it is: the
   * file is cut back to what was durable before, is broken, and takes nothing more.
   */
  sync(): Promise<void>;
  /** `sync` of the whole, its times too, for a file that goes to the Store; then closes it. */
  finish(): Promise<void>;
  /** Whether a failed sync, or an append that could not be cut back, made it unfit for more. */
  isBroken(): boolean;
  close(): void;
  /** Closes and removes it: nothing of it is needed. */
  discardSync(): void;
};
