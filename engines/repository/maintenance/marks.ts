/** Marks of restore points, one small file each beside the manifests, which never change. */
import { errorTable, errorCodeOf } from '../../../schema/domain/errors.ts';
import type { Reason } from '../../../schema/domain/hypervisor.ts';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { RestorePointMark } from '../../../schema/domain/maintenance.ts';
import type { Log } from '../../../schema/domain/seams.ts';
import { isId128 } from '../../../schema/repository/digest.ts';
import { FORMAT_VERSION } from '../../../schema/repository/limits.ts';
import { encodeMarks, parseMarks, type MarksDocument } from '../../../schema/repository/mark.ts';
import type { TrackingTrust } from '../restore-point/parts.ts';
import { markFile, readDocument, type SealedStorage } from '../storage/documents.ts';
import { isReadFailure } from '../storage/files.ts';
import { layout } from '../storage/layout.ts';
import { createTurns } from '../storage/turns.ts';

type State = RestorePointMark['state'];
type Found = Pick<MarksDocument, 'marks' | 'distrusted'>;
type Marks = Found['marks'];
const nothing: Found = { marks: [], distrusted: [] };

export type MarkStore = TrackingTrust & {
  /** The worst. */
  of(id: RestorePointId): RestorePointMark | null;
  /** Those that have any. */
  ids(): RestorePointId[];
  /** Durable when it resolves. Since when: as it was, if it had that mark. */
  set(id: RestorePointId, state: State, why: Reason, now: string): Promise<void>;
  /** Whether it had it. */
  clear(id: RestorePointId, state: State): Promise<boolean>;
  /** There is no such restore point any more. */
  forget(id: RestorePointId): Promise<void>;
};

export async function loadMarks(shelf: SealedStorage, log: Log): Promise<MarkStore> {
  const all = new Map<RestorePointId, Found>();
  const unread = new Set<RestorePointId>();
  for (const name of (await shelf.storage.staging.list(layout.marks)).filter(isId128)) {
    const id = name as RestorePointId;
    const found = await readMarks(shelf, id, log);
    if (!found) unread.add(id);
    else if (isSomething(found)) all.set(id, found);
  }
  const turns = createTurns();
  /** Written by this process, and not failed since: what was only read may be lost with a power cut. */
  const durable = new Set<RestorePointId>();

  async function write(id: RestorePointId, change: Partial<Found>): Promise<void> {
    const found = { ...(all.get(id) ?? nothing), ...change };
    const { storage, vault } = shelf;
    const of = markFile(id);
    durable.delete(id);
    if (!isSomething(found)) {
      await storage.staging.remove(of.file);
      all.delete(id);
      return;
    }
    const text = encodeMarks({ format: FORMAT_VERSION, restorePointId: id, ...found });
    await storage.staging.replace(of.file, vault.sealText(of, text));
    all.set(id, found);
    durable.add(id);
  }

  const othersOf = (id: RestorePointId, state: State): Marks =>
    (all.get(id)?.marks ?? []).filter((one) => one.state !== state);
  const find = (id: RestorePointId, state: State) => all.get(id)?.marks.find((one) => one.state === state);
  return {
    of: (id) => {
      const mark = find(id, 'damaged') ?? find(id, 'suspect');
      return mark ? { restorePointId: id, ...mark } : null;
    },
    ids: () => [...all.keys()],
    set: (id, state, why, now) =>
      turns.take(id, () => {
        const known = find(id, state);
        const isSame = known?.why.code === why.code && known.why.message === why.message;
        if (isSame && durable.has(id)) return Promise.resolve();
        return write(id, { marks: [...othersOf(id, state), { state, why, since: known?.since ?? now }] });
      }),
    clear: (id, state) =>
      turns.take(id, async () => {
        if (!find(id, state)) return false;
        await write(id, { marks: othersOf(id, state) });
        return true;
      }),
    distrust: (id, disk) =>
      turns.take(id, async () => {
        const { distrusted } = all.get(id) ?? nothing;
        if (!distrusted.includes(disk) || !durable.has(id))
          await write(id, { distrusted: [...new Set([...distrusted, disk])] });
      }),
    isDistrusted: (id, disk) => unread.has(id) || (all.get(id)?.distrusted.includes(disk) ?? false),
    forget: (id) => turns.take(id, () => write(id, nothing)),
  };
}

const isSomething = ({ marks, distrusted }: Found): boolean => marks.length + distrusted.length > 0;

/** Null, and an error in the log, when they cannot be read: the next check makes them anew. */
async function readMarks(shelf: SealedStorage, id: RestorePointId, log: Log): Promise<Found | null> {
  const { storage, vault } = shelf;
  const of = markFile(id);
  const path = storage.staging.locate(of.file);
  try {
    const text = await readDocument(storage.staging, vault, of);
    return text === null ? nothing : parseMarks(text, path);
  } catch (error) {
    const code = errorCodeOf(error);
    if (!isReadFailure(error) && !(code && errorTable[code].disposition === 'damage')) throw error;
    log.error('damaged mark of a restore point', { path, error: String(error) });
    return null;
  }
}
