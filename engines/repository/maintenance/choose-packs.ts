/** Which packs are worth what becomes of them. */
import type { PackName } from '../pack/pack-reader.ts';
import type { Accounts, PackAccount } from './pack-account.ts';

/** Less dead than this: copying the living costs more than it gives back. */
const LEAST_DEAD_SHARE = 0.4;

export type Chosen = {
  /** Without anything living, or unknown to the index: their footers will tell. */
  dead: PackName[];
  /** The deadest first. */
  partlyDead: PackName[];
  /** Would have been chosen, but for a locked restore point. */
  lockedCount: number;
};

/** Of `candidates` only: what was written since is nobody's business yet. */
export function choosePacks(candidates: readonly PackName[], { packs }: Accounts): Chosen {
  const chosen: Chosen = { dead: [], partlyDead: [], lockedCount: 0 };
  const shareOf = ({ packId }: PackName): number => deadShareOf(packs.get(packId));
  for (const pack of candidates) {
    const share = shareOf(pack);
    if (share < LEAST_DEAD_SHARE) continue;
    if (packs.get(pack.packId)?.locked) chosen.lockedCount += 1;
    else chosen[share === 1 ? 'dead' : 'partlyDead'].push(pack);
  }
  chosen.partlyDead.sort((a, b) => shareOf(b) - shareOf(a));
  return chosen;
}

const deadShareOf = (account: PackAccount | undefined): number =>
  account ? account.deadBytes / (account.liveBytes + account.deadBytes) : 1;
