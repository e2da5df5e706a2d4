/** Heartbeats of a disk on its way: the newest figures once a second; the worker throttles what goes out. */
import { Context } from '@temporalio/activity';
import { ApplicationFailure } from '@temporalio/common';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { DiskKey } from '../../schema/domain/ids.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import type { TransferHeartbeat } from '../../schema/domain/sessions.ts';
import { toFailure } from '../failures.ts';
import { RateMeter } from './rate-meter.ts';

type Figures = Omit<TransferHeartbeat, 'disk' | 'readRateBytesPerSecond'>;
const BEAT_MS = 1000;

/**
 * Runs `work` with the activity's signal and a place to tell figures. When this worker is being shut down it fails with
 * HOST_DRAINING, so that the workflow goes on elsewhere; a cancellation stays one. The last figures ride in the failure,
 * as its second detail: Temporal keeps the last heartbeat of a try that was lost, not of one that failed.
 */
export async function transferring<T>(
  of: { disk: DiskKey; start: Figures; clock: Clock },
  work: (signal: AbortSignal, tell: (figures: Figures) => void) => Promise<T>,
): Promise<T> {
  const context = Context.current();
  const meter = new RateMeter();
  let newest = of.start;
  const details = (): TransferHeartbeat => ({ disk: of.disk, ...newest, readRateBytesPerSecond: meter.bytesPerSecond });
  const beat = (): void => {
    meter.add(of.clock.monotonic(), newest.readBytes);
    context.heartbeat(details());
  };
  const asDraining = (error: unknown): unknown => {
    if (!context.cancellationDetails?.workerShutdown) return error;
    const message = `disk ${of.disk}: the worker of this machine is being shut down`;
    return new TidemarkError('HOST_DRAINING', message, { diskKey: of.disk }, error);
  };
  beat();
  const timer = setInterval(beat, BEAT_MS);
  try {
    return await work(context.cancellationSignal, (figures) => (newest = figures));
  } catch (error) {
    beat();
    throw withFigures(toFailure(asDraining(error)), details());
  } finally {
    clearInterval(timer);
  }
}

function withFigures(failure: Error, figures: TransferHeartbeat): Error {
  if (failure instanceof ApplicationFailure) failure.details?.push(figures);
  return failure;
}
