import { compileRetryPolicy } from '@temporalio/common';
import { msToNumber } from '@temporalio/common/lib/time.js';
import { describe, expect, it } from 'vitest';
import { activityOptions } from './activity-options.ts';

describe('activity options', () => {
  it.each(Object.entries(activityOptions))('%s compiles', (_name, options) => {
    expect(() => compileRetryPolicy(options.retry!)).not.toThrow();
    expect(msToNumber(options.startToCloseTimeout)).toBeGreaterThan(0);
  });

  it('never repeats a transfer under one fence', () => {
    expect(activityOptions.transferDisk.retry?.maximumAttempts).toBe(1);
  });
});
