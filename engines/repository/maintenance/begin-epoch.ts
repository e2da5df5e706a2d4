/** The next epoch becomes durable, also on a disk that is full: collecting is what makes room again. */
import { errorCodeOf } from '../../../schema/domain/errors.ts';
import { layout } from '../storage/layout.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import type { TimeReading } from './repository-time.ts';
import type { Trash } from './trash-list.ts';

/** Not zeros: some file systems store those for nothing. */
const RESERVE = 'room for a collection '.repeat(800).slice(0, 16_384);

/** REPOSITORY_FULL when even what was put by is not enough. */
export async function beginEpoch(
  { storage, state }: Pick<MaintenanceParts, 'storage' | 'state'>,
  time: TimeReading,
  { packs, manifests }: Trash,
): Promise<number> {
  const { staging } = storage;
  const inTrash = [...new Set([...packs, ...manifests].map(({ epoch }) => epoch))];
  try {
    const epoch = await state.begin(time, inTrash);
    // Where there is no room for it now there is no harm.
    if ((await staging.open(layout.reserveOfState).then(closed)) === null)
      await staging.replace(layout.reserveOfState, RESERVE).catch(() => undefined);
    return epoch;
  } catch (error) {
    if (errorCodeOf(error) !== 'REPOSITORY_FULL') throw error;
    await staging.remove(layout.reserveOfState);
    return state.begin(time, inTrash);
  }
}

async function closed(file: { close(): Promise<void> } | null): Promise<true | null> {
  await file?.close();
  return file && true;
}
