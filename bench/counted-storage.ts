/** A repository's storage, and the folder of its index, with the bytes counted that pass. */
import { openIndexFolder, type IndexFile, type IndexFolder } from '../engines/repository/index/index-folder.ts';
import { openStorage, type Storage } from '../engines/repository/storage/storage.ts';
import { withMetrics } from '../engines/repository/storage/with-metrics.ts';
import { systemClock } from '../workers/runtime/seams.ts';

/** `packs`: records with headers and footers. `documents`: heads, manifests, state and the like. */
export type Passed = { read: number; packs: number; ledger: number; documents: number };

const KINDS: Record<string, keyof Passed> = {
  read: 'read',
  appendSync: 'packs',
  append: 'ledger',
  replace: 'documents',
  putIfAbsent: 'documents',
};

export type CountedStorage = { storage: Storage; passed(): Passed };

export function openCountedStorage(folder: string): CountedStorage {
  const sums: Passed = { read: 0, packs: 0, ledger: 0, documents: 0 };
  const add = (name: string, amount: number, labels: Record<string, string> = {}): void => {
    const kind = KINDS[labels['operation'] ?? ''];
    if (name === 'storage_bytes' && kind) sums[kind] += amount;
  };
  const storage = withMetrics(openStorage({ kind: 'folder', folder }), { clock: systemClock, meter: { add } });
  return { storage, passed: () => ({ ...sums }) };
}

export const passedSince = (before: Passed, now: Passed): Passed => ({
  read: now.read - before.read,
  packs: now.packs - before.packs,
  ledger: now.ledger - before.ledger,
  documents: now.documents - before.documents,
});

export const writtenOf = ({ packs, ledger, documents }: Passed): number => packs + ledger + documents;

/** Bytes that passed a folder of an index. */
export type IndexBytes = { read: number; written: number };

export function openCountedIndex(path: string, bytes: IndexBytes): IndexFolder {
  const folder = openIndexFolder(path);
  return {
    ...folder,
    open: async (name) => countReads(await folder.open(name), bytes),
    create: async (name) => {
      const file = await folder.create(name);
      return {
        ...file,
        append: (part) => {
          bytes.written += part.byteLength;
          return file.append(part);
        },
      };
    },
    replace: (name, whole) => {
      bytes.written += whole.byteLength;
      return folder.replace(name, whole);
    },
  };
}

const countReads = (file: IndexFile, bytes: IndexBytes): IndexFile => ({
  ...file,
  readSync: (into, position) => {
    bytes.read += into.byteLength;
    file.readSync(into, position);
  },
  read: (into, position) => {
    bytes.read += into.byteLength;
    return file.read(into, position);
  },
});
