/** Which restore points a repository knows: names only, listed when somebody asks. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import { layout } from '../storage/layout.ts';
import type { Storage } from '../storage/storage.ts';
import type { WriterCheck } from './scan-pack.ts';

export function createWriterCheck(storage: Storage): WriterCheck {
  let known: Promise<ReadonlySet<string>> | null = null;
  return async (writer: RestorePointId) => (await (known ??= listWriters(storage))).has(writer);
}

async function listWriters({ staging, store }: Storage): Promise<ReadonlySet<string>> {
  const open = await staging.list(layout.open);
  const aborted = await staging.list(layout.aborted);
  const manifests = await store.list(layout.manifests);
  return new Set([...open, ...aborted, ...manifests.map((name) => name.slice(name.lastIndexOf('/') + 1))]);
}
