/** Flags of restore points, one small file each beside the manifests, which never change: keep, hold, lock. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { RestorePointFlags } from '../../../schema/domain/maintenance.ts';
import type { Log } from '../../../schema/domain/seams.ts';
import { isId128 } from '../../../schema/repository/digest.ts';
import { FORMAT_VERSION } from '../../../schema/repository/limits.ts';
import { encodeFlags, parseFlags, type FlagsDocument } from '../../../schema/repository/maintenance-documents.ts';
import { flagsFile, isDamage, readDocument, type SealedStorage } from '../storage/documents.ts';
import { layout } from '../storage/layout.ts';
import type { Storage } from '../storage/storage.ts';
import { createTurns } from '../storage/turns.ts';
import { DAY_MS } from './repository-time.ts';

/** `keep`, `hold`, `lock` as in `FlagsDocument`. */
export type Flags = Pick<FlagsDocument, 'keep' | 'hold' | 'lock'>;

const none: Flags = { keep: false, hold: null, lock: null };

export type FlagStore = {
  /** 'unreadable': whatever they were, nothing is to be removed. */
  of(id: RestorePointId): Flags | 'unreadable';
  ids(): RestorePointId[];
  /** Whether any restore point has, or had, a lock. */
  hasLocks(): boolean;
  /** Durable when it resolves. RESTORE_POINT_HELD when the flags there are cannot be read. */
  change(id: RestorePointId, change: (flags: Flags) => Flags): Promise<Flags>;
  /** The restore point is no more. */
  forget(id: RestorePointId): Promise<void>;
};

/** Files read side by side. */
const READS_AT_ONCE = 16;

export async function loadFlags(sealed: SealedStorage, log: Log): Promise<FlagStore> {
  const { storage, vault } = sealed;
  const { staging } = storage;
  const all = new Map<RestorePointId, Flags | 'unreadable'>();
  const ids = (await staging.list(layout.flagsFolder)).filter(isId128) as RestorePointId[];
  for (let at = 0; at < ids.length; at += READS_AT_ONCE) {
    const group = ids.slice(at, at + READS_AT_ONCE);
    const found = await Promise.all(group.map((id) => readFlags(sealed, log, id)));
    for (const [i, flags] of found.entries()) if (flags) all.set(group[i]!, flags);
  }
  const turns = createTurns();
  return {
    of: (id) => all.get(id) ?? none,
    ids: () => [...all.keys()],
    hasLocks: () => [...all.values()].some((flags) => flags === 'unreadable' || flags.lock !== null),
    change: (id, change) =>
      turns.take(id, async () => {
        const known = all.get(id) ?? none;
        if (known === 'unreadable') throw unreadable(storage, id);
        const flags = change(known);
        const document = { format: FORMAT_VERSION, restorePointId: id, ...flags };
        const of = flagsFile(id);
        await staging.replace(of.file, vault.sealText(of, encodeFlags(document)));
        all.set(id, flags);
        return flags;
      }),
    forget: (id) =>
      turns.take(id, async () => {
        await staging.remove(layout.flags(id));
        all.delete(id);
      }),
  };
}

const unreadable = ({ staging }: Storage, id: RestorePointId): TidemarkError =>
  new TidemarkError('RESTORE_POINT_HELD', `the flags of restore point ${id} cannot be read`, {
    restorePointId: id,
    path: staging.locate(layout.flags(id)),
  });

async function readFlags(
  { storage: { staging }, vault }: SealedStorage,
  log: Log,
  id: RestorePointId,
): Promise<Flags | 'unreadable' | null> {
  const path = staging.locate(layout.flags(id));
  try {
    const text = await readDocument(staging, vault, flagsFile(id));
    if (text === null) return null;
    const { restorePointId, keep, hold, lock } = parseFlags(text, path);
    if (restorePointId === id) return { keep, hold, lock };
    log.error('flags of another restore point: nothing of this one is removed', { path });
  } catch (error) {
    if (!isDamage(error)) throw error;
    log.error('damaged flags: the restore point is not removed', { path, error: String(error) });
  }
  return 'unreadable';
}

/** `nowMs`: repository time; null: not known, so no lock has ended. */
export function isLocked(flags: Flags | 'unreadable', nowMs: number | null): boolean {
  if (flags === 'unreadable') return true;
  return flags.lock !== null && (nowMs === null || nowMs < lockEndMs(flags.lock));
}

const lockEndMs = ({ days, from }: NonNullable<Flags['lock']>): number =>
  from === null ? Infinity : Date.parse(from) + days * DAY_MS;

/** As people and retention see them. `sealedAt`: of the manifest. */
export function describeFlags(flags: Flags | 'unreadable', nowMs: number | null, sealedAt: string): RestorePointFlags {
  if (flags === 'unreadable') return { keep: true, hold: 'its flags cannot be read', lockedUntil: null };
  const { keep, hold, lock } = flags;
  if (lock === null || !isLocked(flags, nowMs)) return { keep, hold, lockedUntil: null };
  // Not begun yet: it will not end before that.
  const fromMs = lock.from === null ? Math.max(nowMs ?? -Infinity, Date.parse(sealedAt)) : Date.parse(lock.from);
  return { keep, hold, lockedUntil: new Date(fromMs + lock.days * DAY_MS).toISOString() };
}
