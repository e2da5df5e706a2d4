/** The index as maps, ledgers and the wire need it: asked by digest. The one place where a digest becomes a record's id. */
import type { Vault } from '../../../schema/repository/vault.ts';
import type { DamagedPlace } from '../index/packs.ts';
import type { IndexEntry, NewRecord, RecordIndex } from '../index/record-index.ts';

export type StoredRecord = Omit<NewRecord, 'id'> & { digest: Uint8Array };

/** As `RecordIndex`, with digests in place of ids. Whatever is asked of it, or told, is touched. */
export type DigestIndex = {
  /** For what starts from packs, where records have ids only. */
  readonly byId: RecordIndex;
  idOf(digest: Uint8Array): Uint8Array;
  lookup(digest: Uint8Array): IndexEntry | null;
  holds(digest: Uint8Array, rawLength: number): boolean;
  apply(records: readonly StoredRecord[]): void;
  forget(place: DamagedPlace): void;
  forgottenCount(): number;
};

/** `touch`: that of the repository's `Reliance`; without it nobody relies on the answers. */
export function createDigestIndex(
  byId: RecordIndex,
  { idOf }: Pick<Vault, 'idOf'>,
  touch: (id: Uint8Array) => void = () => undefined,
): DigestIndex {
  const touched = (digest: Uint8Array): Uint8Array => {
    const id = idOf(digest);
    touch(id);
    return id;
  };
  return {
    byId,
    idOf,
    lookup: (digest) => byId.lookup(touched(digest)),
    holds: (digest, rawLength) => byId.holds(touched(digest), rawLength),
    apply: (records) => byId.apply(records.map(({ digest, ...record }) => ({ ...record, id: touched(digest) }))),
    forget: (place) => byId.forget(place),
    forgottenCount: () => byId.forgottenCount(),
  };
}
