/** Marks of restore points, one small file each beside the manifests, which never change. */
import { errorTable, errorCodeOf } from '../../../schema/domain/errors.ts';
import type { Reason } from '../../../schema/domain/hypervisor.ts';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { RestorePointMark } from '../../../schema/domain/maintenance.ts';
import type { Log } from '../../../schema/domain/seams.ts';
import { isId128 } from '../../../schema/repository/digest.ts';
import { FORMAT_VERSION } from '../../../schema/repository/limits.ts';
import { encodeMarks, parseMarks, type MarksDocument } from '../../../schema/repository/mark.ts';
import { markFile, readDocument, type SealedStorage } from '../storage/documents.ts';
import { isReadFailure } from '../storage/files.ts';
import { layout } from '../storage/layout.ts';
import { createTurns } from '../storage/turns.ts';

type State = RestorePointMark['state'];
type Marks = MarksDocument['marks'];

export type MarkStore = {
  /** The worst. */
  of(id: RestorePointId): RestorePointMark | null;
  /** Those that have any. */
  ids(): RestorePointId[];
  /** Durable when it resolves. Since when: as it was, if it had that mark. */
  set(id: RestorePointId, state: State, why: Reason, now: string): Promise<void>;
  /** Whether it had it. */
  clear(id: RestorePointId, state: State): Promise<boolean>;
};

export async function loadMarks(shelf: SealedStorage, log: Log): Promise<MarkStore> {
  const all = new Map<RestorePointId, Marks>();
  for (const id of (await shelf.storage.staging.list(layout.marks)).filter(isId128)) {
    const marks = await readMarks(shelf, id as RestorePointId, log);
    if (marks.length > 0) all.set(id as RestorePointId, marks);
  }
  const turns = createTurns();
  /** Written by this process, and not failed since: what was only read may be lost with a power cut. */
  const durable = new Set<RestorePointId>();

  async function write(id: RestorePointId, marks: Marks): Promise<void> {
    const { storage, vault } = shelf;
    const of = markFile(id);
    durable.delete(id);
    if (marks.length === 0) {
      await storage.staging.remove(of.file);
      all.delete(id);
      return;
    }
    const text = encodeMarks({ format: FORMAT_VERSION, restorePointId: id, marks });
    await storage.staging.replace(of.file, vault.sealText(of, text));
    all.set(id, marks);
    durable.add(id);
  }

  const othersOf = (id: RestorePointId, state: State): Marks =>
    (all.get(id) ?? []).filter((one) => one.state !== state);
  const find = (id: RestorePointId, state: State) => all.get(id)?.find((one) => one.state === state);
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
        return write(id, [...othersOf(id, state), { state, why, since: known?.since ?? now }]);
      }),
    clear: (id, state) =>
      turns.take(id, async () => {
        if (!find(id, state)) return false;
        await write(id, othersOf(id, state));
        return true;
      }),
  };
}

/** None, and an error in the log, when they cannot be read: the next check makes them anew. */
async function readMarks(shelf: SealedStorage, id: RestorePointId, log: Log): Promise<Marks> {
  const { storage, vault } = shelf;
  const of = markFile(id);
  const path = storage.staging.locate(of.file);
  try {
    const text = await readDocument(storage.staging, vault, of);
    return text === null ? [] : parseMarks(text, path).marks;
  } catch (error) {
    const code = errorCodeOf(error);
    if (!isReadFailure(error) && !(code && errorTable[code].disposition === 'damage')) throw error;
    log.error('damaged mark of a restore point', { path, error: String(error) });
    return [];
  }
}
