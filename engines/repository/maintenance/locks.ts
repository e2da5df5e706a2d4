/** Locks: who is locked from when, and the attribute of the file system that makes it hard to get around them. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Manifest, SealOutcome } from '../../../schema/domain/restore-point.ts';
import type { PackName } from '../pack/pack-reader.ts';
import { soundOrNull } from '../restore-point/page-reader.ts';
import type { SealingHooks } from '../restore-point/parts.ts';
import { manifestFile } from '../storage/documents.ts';
import { layout } from '../storage/layout.ts';
import type { Store } from '../storage/store.ts';
import { isLocked } from './flags.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import type { Accounts } from './pack-account.ts';
import type { TimeReading } from './repository-time.ts';
import { newSeenPages, walkMap } from './walk-map.ts';

type LockParts = Pick<MaintenanceParts, 'storage' | 'vault' | 'seams' | 'flags' | 'time' | 'points' | 'lockDays'>;
type SealingParts = LockParts & Pick<MaintenanceParts, 'index' | 'pages' | 'reliance'>;

export const manifestNameOf = (
  { vault }: Pick<LockParts, 'vault'>,
  { restorePointId, manifest }: Pick<SealOutcome, 'restorePointId' | 'manifest'>,
): string => manifestFile(vault, manifest.vm.vmId, restorePointId).file;

/**
 * The lock is durable before the manifest is: there is no moment in which a restore point is there and not locked. Before
 * that a collection that runs knows all that it needs.
 */
export function createSealingHooks(parts: SealingParts): SealingHooks {
  const { lockDays, time, flags } = parts;
  const protect = createProtection(parts);
  return {
    before: async ({ restorePointId: id, disks }) => {
      if (lockDays === 0) return;
      if (parts.reliance.isWatched()) await touchAll(parts, disks);
      const { nowMs, doubt } = await time.read();
      const from = doubt === null && nowMs !== null ? new Date(nowMs).toISOString() : null;
      await flags.change(id, (known) => ({ ...known, lock: { days: lockDays, from } }));
    },
    after: async (sealed) => {
      if (lockDays > 0) await protect([manifestNameOf(parts, sealed)], true);
    },
  };
}

/**
 * Also what was taken over from a base, which may be locked no longer, or never was. Of a page that cannot be read nobody
 * knows what it needs.
 */
async function touchAll({ index, pages, reliance }: SealingParts, maps: Manifest['disks']): Promise<void> {
  const seen = newSeenPages();
  for (const map of maps)
    await walkMap(map, {
      seen,
      read: async (digest) => (await soundOrNull(() => pages.page(digest))) ?? new Uint8Array(0),
      meet: (digest) => reliance.touch(index.idOf(digest)),
      pause: () => nextTurn(),
    });
}

/** Periods that could not begin when their restore points were sealed, because the time was in doubt, begin now. */
export async function beginLocks({ flags, points }: LockParts, { nowMs, doubt }: TimeReading): Promise<void> {
  if (doubt !== null || nowMs === null) return;
  const from = new Date(nowMs).toISOString();
  for (const id of flags.ids()) {
    const known = flags.of(id);
    if (known === 'unreadable' || known.lock?.from !== null || !points.sealed.has(id)) continue;
    await flags.change(id, (now) => ({ ...now, lock: now.lock && { ...now.lock, from } }));
  }
}

export type Protect = Store['protect'];

/** Says once in the log that it cannot be done. */
export function createProtection({ storage, seams }: Pick<LockParts, 'storage' | 'seams'>): Protect {
  let isTold = false;
  return async (names, on) => {
    if (names.length === 0) return true;
    const can = await storage.store.protect(names, on);
    if (!can && !isTold)
      seams.log.warn('locked files are not immutable: the file system cannot, or this process may not', {
        file: storage.store.locate(names[0]!),
      });
    isTold ||= !can;
    return can;
  };
}

/** Closed packs and manifests of what is locked cannot be touched any more; those of what is not, can again. */
export async function protectLocked(
  parts: LockParts,
  packs: readonly PackName[],
  { packs: accounts }: Accounts,
  nowMs: number | null,
  protect: Protect,
): Promise<void> {
  const { flags, points, lockDays } = parts;
  if (lockDays === 0 && !flags.hasLocks()) return;
  const names: Record<'locked' | 'free', string[]> = { locked: [], free: [] };
  for (const { contents, packId } of packs)
    names[accounts.get(packId)?.locked ? 'locked' : 'free'].push(layout.closedPack(contents, packId));
  for (const sealed of points.sealed.values())
    names[isLocked(flags.of(sealed.restorePointId), nowMs) ? 'locked' : 'free'].push(manifestNameOf(parts, sealed));
  if (await protect(names.locked, true)) await protect(names.free, false);
}
