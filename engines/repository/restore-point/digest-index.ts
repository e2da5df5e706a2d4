/** The index as maps, ledgers and the wire need it: asked by digest. The one place where a digest becomes a record's id. */
import type { Vault } from '../../../schema/repository/vault.ts';
import type { IndexEntry, NewRecord, RecordIndex } from '../index/record-index.ts';

export type StoredRecord = Omit<NewRecord, 'id'> & { digest: Uint8Array };

/** As `RecordIndex`, with digests in place of ids. */
export type DigestIndex = {
  /** For what starts from packs, where records have ids only. */
  readonly byId: RecordIndex;
  idOf(digest: Uint8Array): Uint8Array;
  lookup(digest: Uint8Array): IndexEntry | null;
  holds(digest: Uint8Array, rawLength: number): boolean;
  apply(records: readonly StoredRecord[]): void;
  forget(digest: Uint8Array): void;
  forgottenCount(): number;
};

export function createDigestIndex(byId: RecordIndex, { idOf }: Pick<Vault, 'idOf'>): DigestIndex {
  return {
    byId,
    idOf,
    lookup: (digest) => byId.lookup(idOf(digest)),
    holds: (digest, rawLength) => byId.holds(idOf(digest), rawLength),
    apply: (records) => byId.apply(records.map(({ digest, ...record }) => ({ ...record, id: idOf(digest) }))),
    forget: (digest) => byId.forget(idOf(digest)),
    forgottenCount: () => byId.forgottenCount(),
  };
}
