/** A repository's sealed restore points in portions that fit into an activity's answer. */
import { gunzipSync, gzipSync } from 'node:zlib';
import type { Repository } from '../../engines/repository/repository.ts';
import type { LineageId, RestorePointId, RunKey } from '../../schema/domain/ids.ts';
import {
  type PackedRestorePoints,
  type RestorePointPage,
  type RestorePointSign,
  type SealedRestorePoint,
  stateOf,
} from '../../schema/domain/maintenance-sessions.ts';

/** Of about 150 bytes each. The server refuses 2 MB, and warns of 256 KB. */
const SIGNS_PER_PAGE = 1000;
/** Bytes of JSON before it is compressed, about to a tenth. */
const MOST_PACKED_BYTES = 1024 * 1024;
/** Who unpacks it does not trust it further than this. */
const MOST_UNPACKED_BYTES = 64 * 1024 * 1024;

type Listed = Pick<Repository, 'listSealed' | 'listOpen'>;
const byId = (a: SealedRestorePoint, b: SealedRestorePoint): number => (a.restorePointId < b.restorePointId ? -1 : 1);

/** `asOf`: by the clock that restore points are sealed by. */
export function pageOf(repository: Listed, after: RestorePointId | null, asOf: string): RestorePointPage {
  const above = repository.listSealed().filter(({ restorePointId }) => after === null || restorePointId > after);
  const points = above.sort(byId).slice(0, SIGNS_PER_PAGE);
  const upTo = points.length < above.length ? points.at(-1)!.restorePointId : null;
  return { after, upTo, asOf, signs: points.map(signOf) };
}

/** Of a lineage, which are suspect. */
export const suspectsOf = (repository: Pick<Listed, 'listSealed'>, lineage: LineageId): RestorePointSign[] =>
  repository
    .listSealed()
    .filter((point) => point.manifest.lineage === lineage && stateOf(point) === 'suspect')
    .slice(-SIGNS_PER_PAGE)
    .map(signOf);

function signOf(point: SealedRestorePoint): RestorePointSign {
  const { restorePointId, manifestDigest, mark, flags } = point;
  const isPlain = !flags.keep && flags.hold === null && flags.lockedUntil === null;
  const why = mark?.why.message ?? null;
  return { restorePointId, manifestDigest, state: stateOf(point), why, flags: isPlain ? null : flags };
}

/** `count`: of the first so many ids; those that are no longer sealed are not among the packed. */
export function packRestorePoints(repository: Listed, ids: readonly RestorePointId[]): PackedRestorePoints {
  const sealed = new Map(repository.listSealed().map((point) => [point.restorePointId, point]));
  const texts: string[] = [];
  let [count, bytes] = [0, 0];
  for (const id of ids) {
    const point = sealed.get(id);
    const text = point ? JSON.stringify(point) : '';
    if (bytes > 0 && bytes + text.length > MOST_PACKED_BYTES) break;
    if (point) texts.push(text);
    bytes += text.length;
    count += 1;
  }
  return { packed: gzipSync(`[${texts.join(',')}]`).toString('base64'), count };
}

export function unpackRestorePoints({ packed }: PackedRestorePoints): SealedRestorePoint[] {
  const text = gunzipSync(Buffer.from(packed, 'base64'), { maxOutputLength: MOST_UNPACKED_BYTES });
  return JSON.parse(text.toString('utf8')) as SealedRestorePoint[];
}

/** Which of these runs somebody needs: as a restore point's own, as the one its reference point was made in, as open. */
export function namedRuns(repository: Listed, runs: readonly RunKey[]): RunKey[] {
  const named = new Set<RunKey>(repository.listOpen().map(({ run }) => run));
  for (const { manifest } of repository.listSealed()) {
    named.add(manifest.run);
    if (manifest.referencePoint) named.add(manifest.referencePoint.run);
  }
  return runs.filter((run) => named.has(run));
}
