/** Tells how far long work is, at most once a second. */
import type { MaintenanceProgress } from '../../../schema/domain/maintenance.ts';
import type { Clock } from '../../../schema/domain/seams.ts';

const INTERVAL_MS = 1000;

type Teller = (step: string, totalBytes: number) => (doneBytes: number) => void;

/** The beginning of each step is told at once. `totalBytes` 0: not known. */
export function createTeller(
  clock: Pick<Clock, 'monotonic'>,
  { onProgress }: { onProgress(progress: MaintenanceProgress): void },
): Teller {
  let toldAtMs = -Infinity;
  return (step, totalBytes) => {
    const tell = (doneBytes: number): void => {
      toldAtMs = clock.monotonic();
      onProgress({ step, doneBytes, totalBytes });
    };
    tell(0);
    return (doneBytes) => {
      if (clock.monotonic() - toldAtMs >= INTERVAL_MS) tell(doneBytes);
    };
  };
}
