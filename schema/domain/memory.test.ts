import { afterEach, describe, expect, it } from 'vitest';
import { releaseFreeMemory, releaseMemory, takeMemory } from './memory.ts';

const MIB = 1024 * 1024;
afterEach(releaseFreeMemory);

describe('memory that is taken', () => {
  it('goes to who takes some next, once it was given back', () => {
    const first = takeMemory(MIB);
    const second = takeMemory(MIB);
    expect(second.buffer).not.toBe(first.buffer);
    releaseMemory(first.subarray(100, 200));
    const third = takeMemory(MIB - 5);
    expect(third.buffer).toBe(first.buffer);
    expect(third).toHaveLength(MIB - 5);
  });

  it('is not given for what is much smaller, nor given back twice', () => {
    const large = takeMemory(MIB);
    releaseMemory(large);
    expect(takeMemory(MIB / 4).buffer).not.toBe(large.buffer);
    expect(() => releaseMemory(large)).toThrow('given back twice');
    expect(takeMemory(MIB).buffer).toBe(large.buffer);
  });

  it('is kept up to some amount, that used last', () => {
    const taken = Array.from({ length: 20 }, () => takeMemory(MIB));
    for (const bytes of taken) releaseMemory(bytes);
    expect(taken.map(({ buffer }) => buffer.byteLength > 0).lastIndexOf(false)).toBe(7);
    releaseFreeMemory();
    expect(taken.every(({ buffer }) => buffer.byteLength === 0)).toBe(true);
  });

  it('does not come from what was not taken, or is small', () => {
    const own = Buffer.allocUnsafeSlow(MIB);
    releaseMemory(own);
    expect(own.buffer.byteLength).toBe(0);
    const small = takeMemory(1000);
    releaseMemory(small);
    expect(small).toHaveLength(1000);
    expect(takeMemory(1000).buffer).not.toBe(small.buffer);
  });
});
