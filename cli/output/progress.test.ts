import { expect, test } from 'vitest';
import { createLineReporter, renderSession, type LiveSession } from './progress.ts';

const disk = { diskKey: 'd0', bytesTotal: 1000, readRateBytesPerSecond: 2048, readBytes: 99, sentBytes: 7 };
const session = (bytesDone: number, step = 'transferring', waitsFor = ''): LiveSession => ({
  kind: 'backup',
  sessionId: 's1',
  state: 'Working',
  result: 'None',
  note: '',
  notices: [],
  vms: [
    {
      name: 'web',
      step,
      result: 'None',
      note: '',
      disks: [{ ...disk, bytesDone, waitsFor }],
    },
  ],
});

test('a terminal sees percent, bytes, rate, sent and what is waited for, cut to its width', () => {
  const lines = renderSession(session(425, 'transferring', 'target'), 200);
  expect(lines[2]).toBe(
    '    d0 [########............]  42 %  425 B of 1000 B, read 99 B, sent 7 B, 2.0 KiB/s, waits for target',
  );
  expect(renderSession({ ...session(425), kind: 'restore' }, 200)[2]).toContain('received 99 B, written 7 B');
  expect(renderSession(session(425), 30).every((line) => line.length < 30)).toBe(true);
});

test('where the time of a disk goes is shown with it', () => {
  const live = session(425);
  live.vms[0]!.disks[0]!.stages = { source: 6, proxy: 3, throttling: 0, network: 1, target: 0 };
  expect(renderSession(live, 200)[2]).toMatch(/, Source 60% > Proxy 30% > Network 10% > Target 0%$/);
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

test('more lines than a terminal has are counted, not painted', () => {
  const many = session(0);
  many.vms = Array.from({ length: 30 }, (_, i) => ({ ...many.vms[0]!, name: `vm${i}` }));
  const lines = renderSession(many, 100, 24);
  expect(lines).toHaveLength(23);
  expect(lines.at(-1)).toBe('  ... 39 more lines');
});

test('a picture that may be old says so, and when it no longer is', () => {
  const report = createLineReporter();
  report(session(0));
  const old = { ...session(0), notices: ['Temporal does not answer'] };
  expect(renderSession(old, 80)[1]).toBe('  warning: Temporal does not answer');
  expect(report(old)).toEqual(['warning: Temporal does not answer']);
  expect(report(old)).toEqual([]);
  expect(report(session(0))).toEqual(['all answers again']);
});
