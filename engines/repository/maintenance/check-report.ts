/** What a check says of damage: what hits a restore point, what was found just now, and what is wrong with packs. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { Damage } from '../../../schema/domain/maintenance.ts';
import type { DamagedLine } from '../../../schema/repository/checked-lines.ts';
import type { PackName } from '../pack/pack-reader.ts';
import type { DamageList } from '../pack/damage-list.ts';
import { PACK_IS_MISSING } from '../pack/record-source.ts';
import type { Parts } from '../restore-point/parts.ts';
import type { BadManifest } from './check-manifests.ts';
import type { Judgement, LostId } from './judge-points.ts';

type Findings = {
  judgement: Judgement;
  manifests: readonly BadManifest[];
  /** In scope. */
  packs: readonly PackName[];
  isWhole: boolean;
  /** Known before the check. */
  before: ReadonlySet<DamagedLine>;
};

const DAMAGED = 'DAMAGED_BLOCK';

export function reportDamages({ damages }: Pick<Parts, 'damages'>, findings: Findings): Damage[] {
  const { judgement, manifests, isWhole, before } = findings;
  const existing = new Set(findings.packs.map(({ packId }) => packId));
  const nowhere = nowhereOf(damages.list, judgement);
  const unplaced = [...new Set(nowhere.flatMap(([, { points }]) => points))];
  const isTold = (line: DamagedLine): boolean => {
    const isNew = !before.has(line) && (isWhole || existing.has(line.pack));
    if (line.id !== null) return judgement.lost.has(line.id) || isNew;
    return isMissing(line) ? unplaced.length > 0 || isNew : existing.has(line.pack);
  };
  return [
    ...manifests.map(ofManifest),
    ...[...damages.list.lines()].filter(isTold).map((line) => ofLine(line, judgement, unplaced)),
    ...nowhere.map(([id, { kind, points }]) => ofLost(id, kind, points)),
  ];
}

/** What is lost without a trace: no place of it is known. */
export function nowhereOf(list: DamageList, { lost }: Judgement): [string, LostId][] {
  const placed = new Set([...list.lines()].map(({ id }) => id));
  return [...lost].filter(([id]) => !placed.has(id));
}

export const isMissing = ({ why }: DamagedLine): boolean => why === PACK_IS_MISSING;

const ofManifest = ({ restorePointId, name, why }: BadManifest): Damage => ({
  kind: 'manifest',
  name,
  pack: null,
  offset: null,
  why,
  restorePoints: [restorePointId],
});

/** `unplaced`: hit by what is nowhere. It may have been in a pack that cannot be listed. */
function ofLine(line: DamagedLine, { lost }: Judgement, unplaced: RestorePointId[]): Damage {
  const { kind, pack, offset, id } = line;
  const hit = id === null ? unplaced : (lost.get(id)?.points ?? []);
  const name = id === null ? `pack ${pack}` : `${kind} ${id} in pack ${pack} at ${offset}`;
  return { kind, name, pack, offset, why: { code: line.code ?? DAMAGED, message: line.why }, restorePoints: hit };
}

const ofLost = (id: string, kind: 'record' | 'page', points: RestorePointId[]): Damage => ({
  kind,
  name: `${kind} ${id}`,
  pack: null,
  offset: null,
  why: { code: DAMAGED, message: 'it is nowhere in the repository' },
  restorePoints: points,
});
