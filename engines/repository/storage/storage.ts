/** The storage of a repository: its two halves, and how threads and processes open the same. */
import { type FileSystem, nodeFileSystem } from './file-system.ts';
import { LocalFolder } from './local-folder.ts';
import { createLocalStaging } from './local-staging.ts';
import { createLocalStore } from './local-store.ts';
import type { Staging } from './staging.ts';
import type { Store } from './store.ts';

export type Storage = { staging: Staging; store: Store };

/** Plain data, for lane threads. `folder`: absolute. */
export type StorageDescription = { kind: 'folder'; folder: string };

/** Touches nothing yet. */
export function openStorage({ folder }: StorageDescription, fileSystem: FileSystem = nodeFileSystem): Storage {
  const files = new LocalFolder(folder, fileSystem);
  return { staging: createLocalStaging(files), store: createLocalStore(files) };
}

/** Bytes that may still come, in whichever half is fuller. */
export async function freeBytesOf({ staging, store }: Storage): Promise<number> {
  return Math.min(await staging.freeBytes(), (await store.freeBytes()) ?? Infinity);
}
