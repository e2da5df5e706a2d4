import { compileRetryPolicy } from '@temporalio/common';
import { msToNumber } from '@temporalio/common/lib/time.js';
import { describe, expect, it } from 'vitest';
import { activityBounds, optionsOf } from './activity-options.ts';
import type { Activities } from '../activities/contract.ts';

const names = Object.keys(activityBounds) as (keyof Activities)[];

describe('activity options', () => {
  it.each(names)('%s compiles', (name) => {
    const options = optionsOf(name, 900_000);
    expect(() => compileRetryPolicy(options.retry!)).not.toThrow();
    for (const timeout of [options.startToCloseTimeout, options.scheduleToStartTimeout, options.heartbeatTimeout])
      if (timeout !== undefined) expect(msToNumber(timeout)).toBeGreaterThan(0);
  });

  it('never repeats a transfer under one identity', () => {
    for (const name of ['transferDisk', 'restoreDisk'] as const)
      expect(optionsOf(name, 1).retry?.maximumAttempts).toBe(1);
  });

  it('waits for a machine as long as the job says', () => {
    expect(optionsOf('inspectVm', 1234).scheduleToStartTimeout).toBe(1234);
    expect(optionsOf('releaseCheckpoint', 1234).scheduleToStartTimeout).toBeUndefined();
  });
});
