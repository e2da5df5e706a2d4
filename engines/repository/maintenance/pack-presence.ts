/** Whether packs are there, and as long as they should be: each looked at once, when something in it is needed. */
import { PACK_HEADER_BYTES, RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import { decodePackHeader } from '../../../schema/repository/pack.ts';
import type { RecordPlace } from '../../../schema/domain/seams.ts';
import type { PackName } from '../pack/pack-reader.ts';
import { PACK_IS_MISSING } from '../pack/record-source.ts';
import { readAt, readTrailer } from '../pack/scan-pack.ts';
import { isReadFailure } from '../storage/files.ts';
import { layout } from '../storage/layout.ts';
import type { StoredFile } from '../storage/store.ts';
import type { Parts } from '../restore-point/parts.ts';

/** Looks side by side. */
const LOOKS_AT_ONCE = 8;

export type PackPresence = {
  /** Bytes; null: it is not there; undefined: not looked at yet. */
  bytesOf(pack: string): number | null | undefined;
  /** It turned out not to be there: who needs something of it looks anew. */
  forget(pack: string): void;
  /** Damage of header and trailer goes to the list. */
  look(pack: string): Promise<number | null>;
  /** Where records were found in a pack that has no sound footer: what the index has elsewhere in it is not there. */
  noteRecords(pack: string, offsets: readonly number[]): void;
  /** Why a record cannot be there; undefined: the pack was not looked at yet. */
  faultAt(place: RecordPlace): string | null | undefined;
  lookAtAll(packs: readonly PackName[], signal: AbortSignal): Promise<void>;
};

export function createPackPresence(parts: Pick<Parts, 'storage' | 'file' | 'damages'>): PackPresence {
  const seen = new Map<string, number | null>();
  const found = new Map<string, Set<number>>();
  const look = async (pack: string): Promise<number | null> => {
    const known = seen.get(pack);
    if (known !== undefined) return known;
    const bytes = await inspect(parts, pack);
    seen.set(pack, bytes);
    return bytes;
  };
  return {
    bytesOf: (pack) => seen.get(pack),
    forget: (pack) => void seen.delete(pack),
    look,
    noteRecords: (pack, offsets) => void found.set(pack, new Set(offsets)),
    faultAt: ({ pack, offset, storedLength }) => {
      const bytes = seen.get(pack);
      if (bytes === undefined) return undefined;
      if (bytes === null) return PACK_IS_MISSING;
      if (offset + RECORD_HEADER_BYTES + storedLength > bytes) return 'its pack is cut short';
      const offsets = found.get(pack);
      return !offsets || offsets.has(offset) ? null : 'it is not to be found in its pack';
    },
    lookAtAll: async (packs, signal) => {
      for (let at = 0; at < packs.length; at += LOOKS_AT_ONCE) {
        signal.throwIfAborted();
        await Promise.all(packs.slice(at, at + LOOKS_AT_ONCE).map(({ packId }) => look(packId)));
      }
    },
  };
}

type Shelf = Pick<Parts, 'storage' | 'file' | 'damages'>;

/** Twice: a pack that is closed while we look is met at the second. */
async function inspect(shelf: Shelf, pack: string): Promise<number | null> {
  const { store, staging } = shelf.storage;
  for (let tries = 1; tries <= 2; tries += 1) {
    for (const contents of ['blocks', 'pages'] as const) {
      const closed = await store.open(layout.closedPack(contents, pack));
      if (closed) return closing(closed, () => inspectClosed(shelf, pack, closed));
    }
    const open = await staging.open(layout.openPack(pack));
    if (open) return closing(open, () => open.lengthBytes());
  }
  return null;
}

async function closing<T>(file: StoredFile, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } finally {
    await file.close();
  }
}

async function inspectClosed({ file: { uuid }, damages }: Shelf, pack: string, file: StoredFile): Promise<number> {
  const bytes = await file.lengthBytes();
  try {
    const header = decodePackHeader(await readAt(file, 0, PACK_HEADER_BYTES));
    if (header?.packId !== pack || header.uuid !== uuid) damages.reportPack(pack, 'its header is damaged');
    if (!(await readTrailer(file, bytes))) damages.reportPack(pack, 'its footer is damaged');
  } catch (error) {
    if (!isReadFailure(error)) throw error;
    damages.reportPack(pack, 'the medium does not give it');
  }
  return bytes;
}
