import { ApplicationFailure, ApplicationFailureCategory, CancelledFailure } from '@temporalio/common';
import { describe, expect, it } from 'vitest';
import { TidemarkError } from '../schema/domain/errors.ts';
import { toFailure, translating } from './failures.ts';

describe('failures', () => {
  it('keeps code, message, details and hint', () => {
    const failure = toFailure(
      new TidemarkError('VM_NOT_FOUND', 'vm a is not there', { vm: 'a' }),
    ) as ApplicationFailure;
    expect(failure).toMatchObject({ type: 'VM_NOT_FOUND', message: 'vm a is not there', nonRetryable: true });
    expect(failure.details?.[0]).toMatchObject({ vm: 'a', hint: expect.stringContaining('site.yaml') });
  });

  it('retries what waiting mends and marks waiting benign', () => {
    const failure = toFailure(new TidemarkError('NO_CAPACITY', 'waits for proxy p1')) as ApplicationFailure;
    expect(failure.nonRetryable).toBe(false);
    expect(failure.category).toBe(ApplicationFailureCategory.BENIGN);
  });

  it('knows an error that came from a thread by its code', () => {
    const bare = Object.assign(new Error('fence 3 is old'), { code: 'FENCED' });
    expect(toFailure(bare)).toMatchObject({ type: 'FENCED', nonRetryable: true });
    expect(toFailure(new Error('x is undefined'))).toMatchObject({ type: 'BUG', nonRetryable: false });
  });

  it('lets a cancellation through', async () => {
    const cancelled = new CancelledFailure('stopped');
    const { verb } = translating({ verb: () => Promise.reject(cancelled) });
    await expect(verb()).rejects.toBe(cancelled);
  });
});
