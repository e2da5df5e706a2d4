/** What is done when a record turns out to be damaged: it is not found there any more, now or after a restart. */
import { errorCodeOf, messageOf } from '../../../schema/domain/errors.ts';
import type { ReadFailure, RecordPlace, Seams } from '../../../schema/domain/seams.ts';
import type { DamagedLine } from '../../../schema/repository/checked-lines.ts';
import { asBuffer } from '../../../schema/repository/digest.ts';
import type { RecordIndex } from '../index/record-index.ts';
import type { DamageList } from '../pack/damage-list.ts';
import { PACK_IS_MISSING } from '../pack/record-source.ts';

export type DamagedRecord = { id: Uint8Array; kind: 'record' | 'page'; place: RecordPlace };

export type Damages = {
  readonly list: DamageList;
  /** `error`: of reading the record there. False when it is no damage: then nothing is done. */
  met(record: DamagedRecord, error: unknown): boolean;
  report(record: DamagedRecord, why: string): void;
  /** It is not where packs are. */
  missing(pack: string): void;
  /** Grows with whatever was found. */
  count(): number;
};

export function createDamages(list: DamageList, index: RecordIndex, { clock, log }: Seams): Damages {
  let count = 0;

  function note(line: Omit<DamagedLine, 'foundAt'>): void {
    if (!list.add({ ...line, foundAt: new Date(clock.now()).toISOString() })) return;
    count += 1;
    log.error('damage found', line);
    list.settle().catch((error: unknown) => log.warn('damage is not written down yet', { error: messageOf(error) }));
  }

  function report({ id, kind, place }: DamagedRecord, why: string): void {
    const known = index.lookup(id)?.place;
    if (known?.pack === place.pack && known.offset === place.offset) index.forget(id);
    note({ kind, pack: place.pack, offset: place.offset, id: asBuffer(id).toString('hex'), why });
  }

  function missing(pack: string): void {
    index.dropPacks(new Set([pack]));
    count += 1;
    log.error('pack is missing', { pack });
  }

  return {
    list,
    met: (record, error) => {
      const found = damageOf(error);
      if (found?.isMissing) missing(record.place.pack);
      else if (found) report(record, found.why);
      return found !== null;
    },
    report,
    missing,
    count: () => count,
  };
}

/** What an error of reading a record says of it, also one that crossed threads; null when it says nothing. */
export function damageOf(error: unknown): { why: string; isMissing: boolean } | null {
  const code = errorCodeOf(error);
  if (code !== 'DAMAGED_BLOCK' && code !== 'TAMPERED') return null;
  const { message, details } = error as ReadFailure;
  const why = typeof details['why'] === 'string' ? details['why'] : message;
  return { why, isMissing: why === PACK_IS_MISSING };
}
