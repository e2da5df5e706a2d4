/** What is done when a record turns out to be damaged: it is not found there any more, now or after a restart. */
import { type ErrorCode, errorCodeOf, messageOf } from '../../../schema/domain/errors.ts';
import type { ReadFailure, RecordPlace, Seams } from '../../../schema/domain/seams.ts';
import type { DamagedLine } from '../../../schema/repository/checked-lines.ts';
import { asBuffer } from '../../../schema/repository/digest.ts';
import type { DamageList } from '../pack/damage-list.ts';
import { PACK_IS_MISSING } from '../pack/record-source.ts';
import type { DigestIndex } from './digest-index.ts';

type Kind = 'record' | 'page';
/** Of what is not as it was written, by the medium's fault or by somebody's. */
export type DamageCode = Extract<ErrorCode, 'DAMAGED_BLOCK' | 'TAMPERED'>;
/** `why`: a phrase that says nothing of what the record holds. */
export type Fault = { code: DamageCode; why: string };

export type Damages = {
  readonly list: DamageList;
  /** `error`: of reading the record there. False when it is no damage: then nothing is done. */
  met(record: { digest: Uint8Array; kind: Kind; place: RecordPlace }, error: unknown): boolean;
  /** `id`: of the record. */
  report(record: { id: Uint8Array; kind: Kind; place: Pick<RecordPlace, 'pack' | 'offset'> }, fault: Fault): void;
  /** Something of the pack as a whole; its records may be sound. */
  reportPack(pack: string, why: string): void;
  /** It is not where packs are: what lay in it is looked for elsewhere. */
  missing(pack: string): void;
  /** Of a record or page that is nowhere: TAMPERED where a copy of it was. */
  codeOf(digest: Uint8Array): DamageCode;
  /** Grows with whatever was found. */
  count(): number;
};

export function createDamages(list: DamageList, index: DigestIndex, { clock, log }: Seams): Damages {
  let count = 0;

  function note(line: Omit<DamagedLine, 'foundAt'>): void {
    if (!list.add({ ...line, foundAt: new Date(clock.now()).toISOString() })) return;
    count += 1;
    log.error('damage found', line);
    list.settle().catch((error: unknown) => log.warn('damage is not written down yet', { error: messageOf(error) }));
  }

  const report: Damages['report'] = ({ id, kind, place: { pack, offset } }, { why, code }) => {
    index.forget({ pack, offset });
    const tampered = code === 'TAMPERED' ? { code } : {};
    note({ kind, pack, offset, id: asBuffer(id).toString('hex'), why, ...tampered });
  };

  const reportPack: Damages['reportPack'] = (pack, why) => note({ kind: 'pack', pack, offset: null, id: null, why });

  function missing(pack: string): void {
    index.byId.dropPacks([pack]);
    count += 1;
    reportPack(pack, PACK_IS_MISSING);
  }

  /** A collection may have moved the record since it was looked up. */
  const isStillAt = (id: Uint8Array, { pack, offset }: RecordPlace): boolean => {
    const place = index.byId.lookup(id)?.place;
    return place?.pack === pack && place.offset === offset;
  };

  return {
    list,
    met: ({ digest, kind, place }, error) => {
      const found = damageOf(error);
      const id = index.idOf(digest);
      if (found && !found.isMissing) report({ id, kind, place }, found);
      else if (found && isStillAt(id, place)) missing(place.pack);
      return found !== null;
    },
    report,
    reportPack,
    missing,
    codeOf: (digest) => (list.wasTampered(asBuffer(index.idOf(digest)).toString('hex')) ? 'TAMPERED' : 'DAMAGED_BLOCK'),
    count: () => count,
  };
}

/** What an error of reading a record says of it, also one that crossed threads; null when it says nothing. */
export function damageOf(error: unknown): (Fault & { isMissing: boolean }) | null {
  const code = errorCodeOf(error);
  if (!isDamageCode(code)) return null;
  const { details } = error as ReadFailure;
  const why = typeof details['why'] === 'string' ? details['why'] : 'it is damaged';
  return { code, why, isMissing: why === PACK_IS_MISSING };
}

const isDamageCode = (code: ErrorCode | undefined): code is DamageCode =>
  code === 'DAMAGED_BLOCK' || code === 'TAMPERED';

/** Of a record or page that is nowhere, or is damaged wherever it is. */
export function digestOfMissing(error: unknown): Uint8Array | null {
  if (!isDamageCode(errorCodeOf(error))) return null;
  const { digest } = (error as ReadFailure).details;
  return typeof digest === 'string' ? Buffer.from(digest, 'hex') : null;
}
