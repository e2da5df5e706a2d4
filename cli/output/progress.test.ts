import { expect, test } from 'vitest';
import { createLineReporter, renderSession, type LiveSession } from './progress.ts';

const session = (bytesDone: number, step = 'transferring', waitsFor = ''): LiveSession => ({
  sessionId: 's1',
  state: 'Working',
  result: 'None',
  vms: [
    {
      name: 'web',
      step,
      result: 'None',
      note: '',
      disks: [{ diskKey: 'd0', bytesDone, bytesTotal: 1000, readRateBytesPerSecond: 2048, sentBytes: 7, waitsFor }],
    },
  ],
});

test('a terminal sees percent, bytes, rate, sent and what is waited for, cut to its width', () => {
  const lines = renderSession(session(425, 'transferring', 'target'), 200);
  expect(lines[2]).toBe('    d0 [########............]  42 %  425 B of 1000 B, 2.0 KiB/s, sent 7 B, waits for target');
  expect(renderSession(session(425), 30).every((line) => line.length < 30)).toBe(true);
});

test('a pipe sees a line only when a state, a step or a tenth changed', () => {
  const report = createLineReporter();
  expect(report(session(0))).toHaveLength(3);
  expect(report(session(50))).toEqual([]);
  expect(report(session(150))).toHaveLength(1);
  expect(report(session(150, 'sealing'))).toEqual(['web: sealing']);
});

test('an empty disk is done, not a division by zero', () => {
  const empty = session(0);
  empty.vms[0]!.disks[0]!.bytesTotal = 0;
  expect(renderSession(empty, 200)[2]).toContain('100 %');
});
