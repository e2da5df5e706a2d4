/** Heartbeats of a disk on its way: the newest figures once a second; the worker throttles what goes out. */
import { Context } from '@temporalio/activity';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { DiskKey } from '../../schema/domain/ids.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import type { TransferHeartbeat } from '../../schema/domain/sessions.ts';
import { RateMeter } from './rate-meter.ts';

type Figures = Omit<TransferHeartbeat, 'disk' | 'readRateBytesPerSecond'>;
const BEAT_MS = 1000;

/**
 * Runs `work` with the activity's signal and a place to tell figures. When this worker is being shut down it fails with
 * HOST_DRAINING, so that the workflow goes on elsewhere; a cancellation stays one.
 */
export async function transferring<T>(
  of: { disk: DiskKey; start: Figures; clock: Clock },
  work: (signal: AbortSignal, tell: (figures: Figures) => void) => Promise<T>,
): Promise<T> {
  const context = Context.current();
  const meter = new RateMeter();
  let newest = of.start;
  const beat = (): void => {
    meter.add(of.clock.monotonic(), newest.readBytes);
    const details: TransferHeartbeat = { disk: of.disk, ...newest, readRateBytesPerSecond: meter.bytesPerSecond };
    context.heartbeat(details);
  };
  beat();
  const timer = setInterval(beat, BEAT_MS);
  try {
    return await work(context.cancellationSignal, (figures) => (newest = figures));
  } catch (error) {
    // The last figures ride in the failure.
    beat();
    if (!context.cancellationDetails?.workerShutdown) throw error;
    const message = `disk ${of.disk}: the worker of this machine is being shut down`;
    throw new TidemarkError('HOST_DRAINING', message, { diskKey: of.disk }, error);
  } finally {
    clearInterval(timer);
  }
}
