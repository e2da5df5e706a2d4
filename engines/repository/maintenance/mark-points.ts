/** Marks what was found damaged, and takes the mark from what is whole again. A restore point is never hidden. */
import type { Reason } from '../../../schema/domain/hypervisor.ts';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { CheckReport } from '../../../schema/domain/maintenance.ts';
import type { BadManifest } from './check-manifests.ts';
import type { CheckParts } from './check-parts.ts';
import type { Judgement, PointVerdict } from './judge-points.ts';

export async function markPoints(
  { marks, seams, points }: Pick<CheckParts, 'marks' | 'seams' | 'points'>,
  judgement: Judgement,
  manifests: readonly BadManifest[],
): Promise<Pick<CheckReport, 'marked' | 'healed'>> {
  const now = new Date(seams.clock.now()).toISOString();
  const badManifest = new Map(manifests.map(({ restorePointId, why }) => [restorePointId, why]));
  const [marked, healed]: RestorePointId[][] = [[], []];
  for (const [id, verdict] of judgement.points) {
    const why = badManifest.get(id) ?? whyDamaged(verdict);
    if (why) {
      await marks.set(id, 'damaged', why, now);
      marked!.push(id);
    } else if (await marks.clear(id, 'damaged')) healed!.push(id);
  }
  for (const [id, why] of badManifest) {
    if (judgement.points.has(id) || points.open.has(id)) continue;
    await marks.set(id, 'damaged', why, now);
    marked!.push(id);
  }
  return { marked: marked!, healed: healed! };
}

function whyDamaged({ missingBytes, code, first }: PointVerdict): Reason | null {
  if (missingBytes === 0 || !first) return null;
  const message = `${missingBytes} bytes cannot be read; the first of them: disk ${first.diskKey}, block ${first.block}`;
  return { code, message };
}
