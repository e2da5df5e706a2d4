/** The state of the repository: epoch of collections, repository time, and since when the trash of an epoch has been lying. */
import type { Log } from '../../../schema/domain/seams.ts';
import { FORMAT_VERSION } from '../../../schema/repository/limits.ts';
import { encodeState, parseState, type StateDocument } from '../../../schema/repository/maintenance-documents.ts';
import { isDamage, readDocument, stateFile, type SealedStorage } from '../storage/documents.ts';
import type { Storage } from '../storage/storage.ts';
import type { TimeReading } from './repository-time.ts';

export type RepositoryState = {
  /** What is moved to the trash now goes there. */
  epoch(): number;
  keptTimeMs(): number | null;
  /** The next epoch, durable when it resolves. `inTrash`: epochs that have something there. */
  begin(time: TimeReading, inTrash: readonly number[]): Promise<number>;
  /** The epoch stays; everything in the trash begins its grace anew. Durable when it resolves. */
  setBack(toMs: number): Promise<void>;
  /** Since when everything in the trash of an epoch has been lying there, as far as that is known; ms, repository time. */
  lyingSince(epoch: number): number | null;
};

export async function loadState(sealed: SealedStorage, log: Log): Promise<RepositoryState> {
  const { storage, vault } = sealed;
  let state = (await readState(sealed, log)) ?? (await newState(storage));
  const keep = async (next: StateDocument): Promise<void> => {
    await storage.staging.replace(stateFile.file, vault.sealText(stateFile, encodeState(next)));
    state = next;
  };
  return {
    epoch: () => state.epoch,
    keptTimeMs: () => (state.repositoryTime === null ? null : Date.parse(state.repositoryTime)),
    begin: async ({ nowMs, doubt }, inTrash) => {
      const repositoryTime = nowMs === null ? null : new Date(nowMs).toISOString();
      const settled = settledOf(state.settled, inTrash);
      // In doubt the epoch that ends has no time: the trash of it waits for one that has.
      if (doubt === null && repositoryTime !== null) settled.push({ epoch: state.epoch, at: repositoryTime });
      await keep({ format: FORMAT_VERSION, epoch: state.epoch + 1, repositoryTime, settled });
      return state.epoch;
    },
    setBack: (toMs) => keep({ ...state, repositoryTime: new Date(toMs).toISOString(), settled: [] }),
    lyingSince: (epoch) => {
      const found = state.settled.find((one) => one.epoch >= epoch);
      return found ? Date.parse(found.at) : null;
    },
  };
}

/** Those that say something of what is in the trash. */
function settledOf(settled: StateDocument['settled'], inTrash: readonly number[]): StateDocument['settled'] {
  const used = new Set(inTrash.map((epoch) => settled.find((one) => one.epoch >= epoch)));
  return settled.filter((one) => used.has(one));
}

async function readState({ storage, vault }: SealedStorage, log: Log): Promise<StateDocument | null> {
  const { staging } = storage;
  const path = staging.locate(stateFile.file);
  try {
    const text = await readDocument(staging, vault, stateFile);
    return text === null ? null : parseState(text, path);
  } catch (error) {
    if (!isDamage(error)) throw error;
    // Made anew: then all of the trash begins its grace anew, and no lock ends before the time is known again.
    log.error('the state of the repository is damaged', { path, error: String(error) });
    return null;
  }
}

/** An epoch that was given before is not given again. */
async function newState({ store }: Storage): Promise<StateDocument> {
  const epoch = (await store.listTrash()).at(-1)?.epoch ?? 0;
  return { format: FORMAT_VERSION, epoch, repositoryTime: null, settled: [] };
}
