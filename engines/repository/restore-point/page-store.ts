/** Where map pages are written: those not there yet, each once, found by the index as soon as they are durable. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { RecordSink } from '../../../schema/domain/seams.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import type { DigestIndex, StoredRecord } from './digest-index.ts';

/** Pages that wait for a sync: bounds what is kept of them. */
const MAX_WAITING = 1024;

/** For one writer at a time. */
export type PageStore = {
  /** Digest of the page. Does not keep its memory. */
  put(page: Uint8Array, writer: RestorePointId): Uint8Array;
  /** Whether `flush` is due. */
  isFull(): boolean;
  /** Pages put before are durable, and found, when it resolves. */
  flush(): Promise<void>;
  /** Pages put and not flushed are nowhere, for the one who failed: the next writer puts them again. */
  forget(): void;
  close(): Promise<void>;
};

export function createPageStore(sink: RecordSink, index: DigestIndex): PageStore {
  let waiting = new Map<string, StoredRecord>();
  return {
    put: (page, writer) => {
      const digest = digestOf(page);
      const key = digest.toString('latin1');
      if (waiting.has(key) || index.lookup(digest)?.kind === 'page') return digest;
      const bytes = Uint8Array.from(page);
      const place = sink.append({
        digest,
        codec: 'none',
        rawLength: bytes.byteLength,
        payload: bytes,
        restorePointId: writer,
      });
      waiting.set(key, { digest, kind: 'page', place, writer });
      return digest;
    },
    isFull: () => waiting.size >= MAX_WAITING,
    flush: async () => {
      const written = waiting;
      // Lost when the sync fails: they are put again.
      waiting = new Map();
      await sink.sync();
      index.apply([...written.values()]);
    },
    forget: () => {
      waiting = new Map();
    },
    close: () => sink.close(),
  };
}
