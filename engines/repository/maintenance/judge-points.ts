/** Which restore points are whole: every id that their maps name lies in a pack that is there, and pages are what they say. */
import { asBuffer } from '../../../schema/repository/digest.ts';
import type { DiskKey, RestorePointId } from '../../../schema/domain/ids.ts';
import type { SealOutcome } from '../../../schema/domain/restore-point.ts';
import { PACK_IS_MISSING } from '../pack/record-source.ts';
import type { DamageCode } from '../restore-point/damages.ts';
import { createMapJudge, type LostPart } from '../restore-point/judge-map.ts';
import { createPageReader } from '../restore-point/page-reader.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import type { PackPresence } from './pack-presence.ts';

/** Of lost ids, and of restore points that each hits: a report is read by people. */
const MOST_LOST = 2000;
const MOST_POINTS_EACH = 1000;

/** `code`: TAMPERED when anything of it was tampered with. */
export type PointVerdict = {
  missingBytes: number;
  code: DamageCode;
  first: { diskKey: DiskKey; block: number } | null;
};
export type LostId = { kind: 'record' | 'page'; points: RestorePointId[] };

export type Judgement = {
  points: Map<RestorePointId, PointVerdict>;
  /** By record id, hex; not more than 2000. */
  lost: Map<string, LostId>;
};

export type JudgeParts = Pick<MaintenanceParts, 'records' | 'unwatched' | 'source' | 'damages' | 'points'>;

export async function judgePoints(
  parts: JudgeParts,
  points: readonly SealOutcome[],
  work: { presence: PackPresence; signal: AbortSignal; tell(donePoints: number): void },
): Promise<Judgement> {
  const judgement: Judgement = { points: new Map(), lost: new Map() };
  const pages = createPageReader({ ...parts, index: parts.unwatched });
  const judge = createMapJudge({ pages, resolves: createResolver(parts, work.presence), signal: work.signal });
  for (const [at, { manifest }] of points.entries()) {
    work.tell(at);
    const verdict: PointVerdict = { missingBytes: 0, code: 'DAMAGED_BLOCK', first: null };
    const lost: { id: string; kind: LostPart['kind'] }[] = [];
    for (const disk of manifest.disks)
      verdict.missingBytes += await judge.missingBytes(disk, ({ kind, digest, block }) => {
        verdict.first ??= { diskKey: disk.diskKey, block };
        if (parts.damages.codeOf(digest) === 'TAMPERED') verdict.code = 'TAMPERED';
        if (lost.length < MOST_LOST) lost.push({ id: asBuffer(parts.unwatched.idOf(digest)).toString('hex'), kind });
      });
    // One that was removed meanwhile says nothing.
    if (!parts.points.sealed.has(manifest.restorePointId)) continue;
    judgement.points.set(manifest.restorePointId, verdict);
    for (const { id, kind } of lost) noteLost(judgement.lost, id, kind, manifest.restorePointId);
  }
  return judgement;
}

function noteLost(lost: Judgement['lost'], id: string, kind: LostPart['kind'], point: RestorePointId): void {
  const known = lost.get(id) ?? { kind, points: [] };
  if (!lost.has(id) && lost.size >= MOST_LOST) return;
  lost.set(id, known);
  if (known.points.length < MOST_POINTS_EACH && known.points.at(-1) !== point) known.points.push(point);
}

/** Whether a record is where the index says, as far as that can be told without reading it. */
function createResolver({ records, unwatched, damages }: JudgeParts, presence: PackPresence) {
  function resolves(digest: Uint8Array, length: number): boolean | Promise<boolean> {
    const place = records.lookup(unwatched.idOf(digest))?.place;
    if (place?.rawLength !== length) return false;
    return presence.faultAt(place) === null || look(digest, length);
  }

  /** What is not there is forgotten; then another copy may serve. */
  async function look(digest: Uint8Array, length: number): Promise<boolean> {
    const id = Uint8Array.from(unwatched.idOf(digest));
    const place = records.lookup(id)?.place;
    if (place?.rawLength !== length) return false;
    await presence.look(place.pack);
    const fault = presence.faultAt(place);
    const now = records.lookup(id)?.place;
    if (fault && now?.pack === place.pack && now.offset === place.offset) {
      if (fault === PACK_IS_MISSING) damages.missing(place.pack);
      else damages.report({ id, kind: 'record', place }, { code: 'DAMAGED_BLOCK', why: fault });
    }
    return fault ? resolves(digest, length) : true;
  }

  return resolves;
}
