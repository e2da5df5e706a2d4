/** Windows of a disk that are restored at once. */
import type { DepthBounds } from '../depth.ts';

/** While one comes over its connection, the other is decoded and written: a socket holds less than a block. */
export const WINDOWS_PER_LANE = 2;

/** `restoreDepth`: asked for by the operator; default: found out. */
export type RestoreLanes = { laneCount: number; restoreDepth?: number };

/** `laneLimit`: lanes that may work on the disk, when they are fewer. */
export function restoreDepthOf({ laneCount, restoreDepth }: RestoreLanes, laneLimit: number): DepthBounds {
  const lanes = Math.min(laneCount, laneLimit);
  const most = lanes * WINDOWS_PER_LANE;
  return { lanes, first: most, most, fixed: restoreDepth };
}
