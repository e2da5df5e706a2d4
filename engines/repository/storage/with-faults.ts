/** Fails calls by plan, as a file system would: for tests of whoever stands above. */
import { aroundCalls, type StorageCall } from './around-calls.ts';
import { storageError } from './files.ts';
import type { StagingFile } from './staging.ts';
import type { Storage } from './storage.ts';

/**
 * Which calls: `half`, `operation` (the method) and `name`, each default all; after `after` that pass, `times` fail, by
 * default one. 'short': a read gives half of what it could. A call that fails has done nothing; with `late` it has done all.
 */
export type StorageFault = {
  what: 'EIO' | 'ENOSPC' | 'short';
  operation: string;
  half?: StorageCall['half'];
  name?: RegExp;
  after?: number;
  times?: number;
  late?: boolean;
};

export function withFaults(storage: Storage, plan: readonly StorageFault[]): Storage {
  const faults = plan.map((fault) => ({ after: 0, times: 1, ...fault }));
  const due = ({ half, operation, name }: StorageCall): StorageFault | null => {
    for (const fault of faults) {
      if (fault.operation !== operation || (fault.half ?? half) !== half || !(fault.name ?? /^/).test(name)) continue;
      if (fault.after > 0) fault.after -= 1;
      else if (fault.times > 0) {
        fault.times -= 1;
        return fault;
      }
    }
    return null;
  };
  const failure = ({ half, name }: StorageCall, what: string): unknown =>
    storageError(Object.assign(new Error(`${what} as planned`), { code: what }), storage[half].locate(name));
  const { staging, store } = aroundCalls(storage, {
    async: async <T>(call: StorageCall, work: () => Promise<T>): Promise<T> => {
      const fault = due(call);
      if (fault === null) return work();
      if (fault.what === 'short') return Math.floor(Number(await work()) / 2) as T;
      if (fault.late) await work();
      throw failure(call, fault.what);
    },
    sync: (call, work) => {
      const fault = due(call);
      if (fault === null) return work();
      if (fault.late) work();
      throw failure(call, fault.what);
    },
  });
  return {
    staging: {
      ...staging,
      createSync: (name) => breakingFile(staging.createSync(name)),
      openFile: async (name) => breakingFile(await staging.openFile(name)),
    },
    store,
  };
}

/** A sync that was made to fail breaks the file, as the contract has it. */
function breakingFile(file: StagingFile): StagingFile {
  let durableBytes = file.lengthBytes();
  let broken: unknown = null;
  const orBroken = async (sync: () => Promise<void>): Promise<void> => {
    if (broken !== null) throw broken;
    const lengthBytes = file.lengthBytes();
    try {
      await sync();
      durableBytes = lengthBytes;
    } catch (error) {
      broken = error;
      await file.cutBack(durableBytes).catch(() => undefined);
      throw error;
    }
  };
  return {
    ...file,
    appendSync: (...parts) => {
      if (broken !== null) throw broken;
      return file.appendSync(...parts);
    },
    append: async (bytes) => {
      if (broken !== null) throw broken;
      return file.append(bytes);
    },
    cutBack: async (lengthBytes) => {
      await file.cutBack(lengthBytes);
      durableBytes = Math.min(durableBytes, lengthBytes);
    },
    sync: () => orBroken(() => file.sync()),
    finish: () => orBroken(() => file.finish()),
    isBroken: () => broken !== null || file.isBroken(),
  };
}
