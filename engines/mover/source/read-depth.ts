/** Segments of a disk that are read at once. */
import type { DepthBounds } from '../depth.ts';

const FIRST_PER_LANE = 4;
export const MOST_PER_LANE = 8;
/** Of all lanes: their buffers take 128 MiB. */
const MOST_SEGMENTS = 32;
/** Of all lanes, at first. */
const FIRST_SEGMENTS = 16;

/** `readDepth`: asked for by the operator; default: found out. */
export type SourceLanes = { laneCount: number; readDepth?: number };

/** `laneLimit`: lanes that may work on the disk, when they are fewer. */
export function readDepthOf({ laneCount, readDepth }: SourceLanes, laneLimit: number): DepthBounds {
  const lanes = Math.min(laneCount, laneLimit);
  return {
    lanes,
    first: Math.min(lanes * FIRST_PER_LANE, FIRST_SEGMENTS),
    most: Math.min(lanes * MOST_PER_LANE, MOST_SEGMENTS),
    fixed: readDepth,
  };
}
