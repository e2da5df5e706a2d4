/** Which packs are worth what becomes of them. */
import type { PackName } from '../pack/pack-reader.ts';
import { chooseMerges, type Merge } from './choose-merges.ts';
import type { Accounts, PackAccount } from './pack-account.ts';

/** Less dead than this: copying the living costs more than it gives back. */
const LEAST_DEAD_SHARE = 0.4;

export type Chosen = {
  /** Without anything living, or unknown to the index: their footers will tell. */
  dead: PackName[];
  /** The deadest first. */
  partlyDead: PackName[];
  /** Small ones of the others, which are worth being written together. */
  merges: Merge[];
  /** Would have been chosen, but for a locked restore point. */
  lockedCount: number;
};

/** Of `candidates` only: what was written since is nobody's business yet. `isDamaged`: something of it is known to be. */
export function choosePacks(
  candidates: readonly PackName[],
  { packs }: Accounts,
  isDamaged: (packId: string) => boolean,
): Chosen {
  const dead: PackName[] = [];
  const partlyDead: PackName[] = [];
  const others: PackName[] = [];
  let lockedCount = 0;
  const shareOf = ({ packId }: PackName): number => deadShareOf(packs.get(packId));
  for (const pack of candidates) {
    const share = shareOf(pack);
    const isLocked = packs.get(pack.packId)?.locked;
    if (share < LEAST_DEAD_SHARE) {
      // One that is damaged would stay as it is, and be copied in vain by each collection.
      if (!isLocked && !isDamaged(pack.packId)) others.push(pack);
    } else if (isLocked) lockedCount += 1;
    else (share === 1 ? dead : partlyDead).push(pack);
  }
  partlyDead.sort((a, b) => shareOf(b) - shareOf(a));
  return { dead, partlyDead, merges: chooseMerges(others, packs), lockedCount };
}

const deadShareOf = (account: PackAccount | undefined): number =>
  account ? account.deadBytes / (account.liveBytes + account.deadBytes) : 1;
