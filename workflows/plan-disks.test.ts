import { describe, expect, it } from 'vitest';
import { diskKey, lineageId, restorePointId, runKey } from '../schema/domain/ids.ts';
import type { BaseRestorePoint, OpenedRestorePoint } from '../schema/domain/restore-point.ts';
import { fallbackWarnings, type JudgedDisk, planDisk, shrinkWarnings } from './plan-disks.ts';

const MIB = 1 << 20;
const disk = (use: JudgedDisk['verdict']['use'], message = 'so it was judged'): JudgedDisk => ({
  diskKey: diskKey('d0'),
  sizeBytes: 5 * MIB,
  sectorBytes: 512,
  identity: 'i0',
  shared: false,
  snapshotOk: true,
  verdict: { diskKey: diskKey('d0'), use, reason: { code: 'JUDGED', message } },
});
const point = (id: string, blockSize = MIB, key = 'd0'): BaseRestorePoint => ({
  restorePointId: restorePointId(id),
  lineage: lineageId('l'),
  sealedAt: 't',
  referencePoint: {
    run: runKey(id),
    lineage: lineageId('l'),
    platformId: 'p',
    disks: [{ diskKey: diskKey(key), trackingId: 't', identity: 'i0', sizeBytes: 5 * MIB }],
  },
  disks: [{ diskKey: diskKey(key), identity: 'i0', sizeBytes: 5 * MIB, blockSize }],
});
const opened = (base: BaseRestorePoint | null, compareWith: BaseRestorePoint | null = base): OpenedRestorePoint => ({
  restorePointId: restorePointId('new'),
  endpoint: { unix: '/s' },
  base,
  compareWith,
  freeBytes: 1,
});

describe('planDisk', () => {
  it.each([
    ['changes on its base', 'changes', opened(point('base')), 'cbt', 'base'],
    // An increment is built on the base only, never on another lineage's point.
    ['changes without a base', 'changes', opened(null, point('other')), 'comparison', 'other'],
    ['changes on a base that lacks the disk', 'changes', opened(point('base', MIB, 'd9')), 'full', null],
    ['changes on a base of other blocks', 'changes', opened(point('base', 4 * MIB)), 'full', null],
    ['compare with the newest', 'compare', opened(point('base'), point('newest')), 'comparison', 'newest'],
    [
      'compare where the newest lacks the disk',
      'compare',
      opened(point('base'), point('n', MIB, 'd9')),
      'comparison',
      'base',
    ],
    ['compare with nothing', 'compare', opened(null), 'full', null],
    ['full, although there is a base', 'full', opened(point('base')), 'full', null],
  ] as const)('%s', (_name, use, of, mode, baseRestorePointId) => {
    const plan = planDisk(disk(use), of, MIB);
    expect(plan).toMatchObject({ mode, baseRestorePointId, identity: 'i0', sizeBytes: 5 * MIB });
    expect(plan.reason).toEqual({ code: 'JUDGED', message: 'so it was judged' });
  });
});

describe('fallbackWarnings', () => {
  it('warns of a disk that was tracked and is not read by its changes', () => {
    const of = opened(point('base'));
    const plans = [planDisk(disk('compare', 'its bitmap is gone'), of, MIB)];
    expect(fallbackWarnings(plans, of)).toEqual([
      { level: 'warning', code: 'JUDGED', message: 'disk d0 is read by comparison: its bitmap is gone' },
    ]);
  });

  it('is silent about a disk read by its changes, and about one that never was tracked', () => {
    const of = opened(point('base'));
    expect(fallbackWarnings([planDisk(disk('changes'), of, MIB)], of)).toEqual([]);
    const first = opened(null);
    expect(fallbackWarnings([planDisk(disk('full'), first, MIB)], first)).toEqual([]);
  });
});

describe('shrinkWarnings', () => {
  const had = (id: string, sizeBytes: number, key = 'd0'): BaseRestorePoint => {
    const of = point(id, MIB, key);
    return { ...of, disks: of.disks.map((each) => ({ ...each, sizeBytes })) };
  };
  const said = (of: OpenedRestorePoint) => shrinkWarnings([planDisk(disk('compare'), of, MIB)], of);

  it('warns of a disk that is smaller than in its last restore point, by whichever job', () => {
    const message =
      'disk d0 is smaller than in its last restore point newest: from 128 MiB (134217728 bytes) to 5.0 MiB (5242880 bytes); ' +
      'what was beyond is in no new restore point';
    const warning = { level: 'warning', code: 'DISK_SHRUNK', message };
    expect(said(opened(point('base'), had('newest', 128 * MIB)))).toEqual([warning]);
    // The newest has not the disk.
    expect(said(opened(had('newest', 128 * MIB), point('other', MIB, 'd9')))).toEqual([warning]);
  });

  it('is silent about a disk that has its size, grew, shrank before its last restore point, or is new', () => {
    expect(said(opened(point('base')))).toEqual([]);
    expect(said(opened(had('base', MIB)))).toEqual([]);
    expect(said(opened(had('base', 128 * MIB), point('newest')))).toEqual([]);
    expect(said(opened(had('base', 128 * MIB, 'd9')))).toEqual([]);
    expect(said(opened(null))).toEqual([]);
  });
});
