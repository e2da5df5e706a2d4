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
  type TrashedRestorePoint,
} from '../../schema/domain/maintenance-sessions.ts';

/** Of about 150 bytes each. The server refuses 2 MB, and warns of 256 KB. */
const SIGNS_PER_PAGE = 1000;
/** Bytes of JSON before it is compressed, about to a tenth. */
const MOST_PACKED_BYTES = 1024 * 1024;
/** Who unpacks it does not trust it further than this. */
const MOST_UNPACKED_BYTES = 64 * 1024 * 1024;

type Listed = Pick<Repository, 'survey' | 'describeTrashed'>;
type WithId = { restorePointId: RestorePointId };
const byId = (a: WithId, b: WithId): number => (a.restorePointId < b.restorePointId ? -1 : 1);

export async function pageOf(repository: Listed, after: RestorePointId | null): Promise<RestorePointPage> {
  const { sealed, trashed, asOf } = await repository.survey();
  const above = [...sealed, ...trashed].filter(({ restorePointId }) => after === null || restorePointId > after);
  const upTo = above.sort(byId)[SIGNS_PER_PAGE] ? above[SIGNS_PER_PAGE - 1]!.restorePointId : null;
  const isIn = ({ restorePointId: id }: WithId): boolean =>
    (after === null || id > after) && (upTo === null || id <= upTo);
  const signs = sealed.filter(isIn).sort(byId).map(signOf);
  return { after, upTo, asOf, signs, trashed: trashed.filter(isIn).sort(byId) };
}

/** Of a lineage, which are suspect. */
export async function suspectsOf(repository: Pick<Listed, 'survey'>, lineage: LineageId): Promise<RestorePointSign[]> {
  const { sealed } = await repository.survey();
  return sealed
    .filter((point) => point.manifest.lineage === lineage && stateOf(point) === 'suspect')
    .slice(-SIGNS_PER_PAGE)
    .map(signOf);
}

function signOf(point: SealedRestorePoint): RestorePointSign {
  const { restorePointId, manifestDigest, mark, flags } = point;
  const isPlain = !flags.keep && flags.hold === null && flags.lockedUntil === null;
  const why = mark?.why.message ?? null;
  return { restorePointId, manifestDigest, state: stateOf(point), why, flags: isPlain ? null : flags };
}

/** `count`: of the first so many ids; those that are not there, not even in the trash, are not among the packed. */
export async function packRestorePoints(
  repository: Listed,
  ids: readonly RestorePointId[],
): Promise<PackedRestorePoints> {
  const { sealed, asOf } = await repository.survey();
  const known = new Map<RestorePointId, SealedRestorePoint | TrashedRestorePoint>();
  for (const point of sealed) known.set(point.restorePointId, point);
  const trashed = await repository.describeTrashed(ids.filter((id) => !known.has(id)));
  for (const point of trashed) known.set(point.restorePointId, point);
  const texts: string[] = [];
  let [count, bytes] = [0, 0];
  for (const id of ids) {
    const point = known.get(id);
    const text = point ? JSON.stringify(point) : '';
    if (bytes > 0 && bytes + text.length > MOST_PACKED_BYTES) break;
    if (point) texts.push(text);
    bytes += text.length;
    count += 1;
  }
  return { packed: gzipSync(`[${texts.join(',')}]`).toString('base64'), count, asOf };
}

export function unpackRestorePoints({ packed }: PackedRestorePoints): (SealedRestorePoint | TrashedRestorePoint)[] {
  const text = gunzipSync(Buffer.from(packed, 'base64'), { maxOutputLength: MOST_UNPACKED_BYTES });
  return JSON.parse(text.toString('utf8')) as (SealedRestorePoint | TrashedRestorePoint)[];
}

/** Which of these runs somebody needs: as a restore point's own, as the one its reference point was made in, as open. */
export function namedRuns(
  repository: Pick<Repository, 'listSealed'> & { listOpen(): { run: RunKey }[] },
  runs: readonly RunKey[],
): RunKey[] {
  const named = new Set<RunKey>(repository.listOpen().map(({ run }) => run));
  for (const { manifest } of repository.listSealed()) {
    named.add(manifest.run);
    if (manifest.referencePoint) named.add(manifest.referencePoint.run);
  }
  return runs.filter((run) => named.has(run));
}
