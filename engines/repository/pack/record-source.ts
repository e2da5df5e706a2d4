/** Reads stored payloads, wherever their pack is by now: open, closed, or moved between two looks. */
import { releaseMemory, takeMemory } from '../../../schema/domain/memory.ts';
import type { Clock, RecordPlace, RecordSource } from '../../../schema/domain/seams.ts';
import { RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import { decodeRecordHeader, isSoundShape, recordError } from '../../../schema/repository/record.ts';
import type { Vault } from '../../../schema/repository/vault.ts';
import { isReadFailure } from '../storage/files.ts';
import { layout } from '../storage/layout.ts';
import type { Storage } from '../storage/storage.ts';
import type { StoredFile } from '../storage/store.ts';
import { IdleTimer } from './idle-timer.ts';

const MAX_OPEN_PACKS = 32;
/** `details.why` of what is no damage: the pack may be elsewhere by now, or come back. */
export const PACK_IS_MISSING = 'its pack is missing';

type SourceOptions = {
  storage: Storage;
  vault: Vault;
  /** A pack that nobody reads for so long is closed; absent: it stays open, and one that is removed takes its room. */
  idle?: Idle | undefined;
};
type Idle = { clock: Clock; idleMs: number };

/** Bounded: at most 32 packs open. Reads may run side by side. */
export function openRecordSource({ storage, vault, idle }: SourceOptions): RecordSource {
  const packs = createPackCache(storage, idle);
  return {
    read: async (place, digest, options) => {
      const id = vault.idOf(digest);
      // Which of the two it should be, the vault says when it sees the header.
      if (!isSoundShape(place) && !isSoundShape(place, true)) throw damaged(place, id, 'impossible lengths');
      const bytes = takeMemory(RECORD_HEADER_BYTES + place.storedLength);
      const got = await packs.read(place.pack, bytes, place.offset).catch((error: unknown) => {
        throw isReadFailure(error) ? damaged(place, id, 'the medium does not give it') : error;
      });
      if (got === null) throw damaged(place, id, PACK_IS_MISSING);
      const payload = payloadOf(vault, bytes.subarray(0, got), { place, id, ...options });
      if (payload.buffer !== bytes.buffer) releaseMemory(bytes);
      return payload;
    },
    close: () => packs.close(),
  };
}

const damaged = (place: RecordPlace, id: Uint8Array, why: string) => recordError('DAMAGED_BLOCK', id, place, why);

type Wanted = { place: RecordPlace; id: Uint8Array; unsummed?: boolean };

function payloadOf(vault: Vault, bytes: Buffer, { place, id, unsummed }: Wanted): Uint8Array {
  const header = decodeRecordHeader(bytes);
  if (!header) throw damaged(place, id, 'its header is damaged');
  if (Buffer.compare(header.id, id) !== 0) throw damaged(place, id, 'another block lies there');
  const same = header.storedLength === place.storedLength && header.rawLength === place.rawLength;
  if (!same || header.codec !== place.codec) throw damaged(place, id, 'its header differs from the index');
  return vault.openRecord(header, bytes.subarray(RECORD_HEADER_BYTES), place, unsummed);
}

/** Packs least recently used, or idle, are closed; a pack in use is closed after its last read. */
function createPackCache(storage: Storage, idle: Idle | undefined) {
  type Entry = { file: Promise<StoredFile | null>; users: number; evicted: boolean; idle: IdleTimer | null };
  const entries = new Map<string, Entry>();

  const shut = async (entry: Entry): Promise<void> => {
    await (await entry.file)?.close();
  };

  function forget(pack: string, entry: Entry): void {
    entries.delete(pack);
    entry.idle?.stop();
  }

  function evict(pack: string, entry: Entry): void {
    forget(pack, entry);
    entry.evicted = true;
    if (entry.users === 0) shut(entry).catch(() => undefined);
  }

  function evictOldest(): void {
    for (const [pack, entry] of entries) {
      if (entries.size <= MAX_OPEN_PACKS) return;
      evict(pack, entry);
    }
  }

  function enter(pack: string): Entry {
    const entry: Entry = { file: openPack(storage, pack), users: 0, evicted: false, idle: null };
    if (idle) entry.idle = new IdleTimer({ ...idle, onIdle: () => evict(pack, entry) });
    return entry;
  }

  async function use<T>(pack: string, work: (file: StoredFile | null) => Promise<T>): Promise<T> {
    const entry = entries.get(pack) ?? enter(pack);
    entries.delete(pack);
    entries.set(pack, entry);
    entry.users += 1;
    entry.idle?.touch();
    evictOldest();
    try {
      return await work(await entry.file);
    } finally {
      entry.users -= 1;
      if ((await entry.file.catch(() => null)) === null && entries.get(pack) === entry) forget(pack, entry);
      if (entry.evicted && entry.users === 0) await shut(entry).catch(() => undefined);
    }
  }

  return {
    /** Bytes read (fewer only at the end of the file), or null when there is no such pack. */
    read: (pack: string, into: Buffer, position: number): Promise<number | null> =>
      use(pack, async (file) => (file ? file.read(into, position) : null)),
    close: async (): Promise<void> => {
      const all = [...entries];
      for (const [pack, entry] of all) forget(pack, entry);
      await Promise.all(all.map(([, entry]) => shut(entry)));
    },
  };
}

/** Looks twice: a pack that moves from open to closed while we look is met at the second look. The likeliest place first. */
async function openPack({ staging, store }: Storage, pack: string): Promise<StoredFile | null> {
  for (let look = 1; look <= 2; look += 1) {
    const found =
      (await store.open(layout.closedPack('blocks', pack))) ??
      (await staging.open(layout.openPack(pack))) ??
      (await store.open(layout.closedPack('pages', pack)));
    if (found) return found;
  }
  return null;
}
