/** Repositories written by version 1 of the format are opened, restored, checked and gone on with, for ever. */
import { afterEach, describe, expect, test } from 'vitest';
import { hostId } from '../../schema/domain/ids.ts';
import { goldenRuns, goldenVms } from '../../tests/fixtures/repository/golden-content.ts';
import {
  asExpected,
  copyGolden,
  goldenDigest,
  goldenPassphrase,
  restoreAll,
  type GoldenCopy,
  type GoldenName,
} from '../../tests/fixtures/repository/golden-repository.ts';
import { finishOpenRun } from '../../tests/fixtures/repository/golden-run.ts';
import { handTransfer } from '../../tests/fixtures/repository/hand-transfer.ts';
import { planOf, runOf, sealOf, specOf } from '../../tests/fixtures/repository/test-repository.ts';

// The code of today is tried on these bytes: a change of them would only say that it reads what it writes.
const digests: Record<GoldenName, string> = {
  'v1-plain': 'e1939f31e6a24ad319722fb7102d80b6712a647dfa664b4ed48bb76e2c811282',
  'v1-encrypted': '6e34223f15de06bb8080570b763af3944442e296b256bcd2c31ac290388c36a2',
};

test.each(Object.keys(digests) as GoldenName[])('%s has not changed', async (name) => {
  expect(await goldenDigest(name)).toBe(digests[name]);
});

describe.each(Object.keys(digests) as GoldenName[])('%s', (name) => {
  let copy: GoldenCopy;
  const opened = async (): Promise<void> => {
    copy = await copyGolden(name);
    await copy.open();
  };
  afterEach(() => copy.remove());

  test('lists what is sealed and open, with flags, lock and mark', async () => {
    await opened();
    const { expected, repository } = copy;
    const sealed = repository.listSealed();
    expect(sealed.map(({ restorePointId }) => restorePointId).toSorted()).toEqual(
      expected.sealed.map(({ restorePointId }) => restorePointId).toSorted(),
    );
    const { keep, hold, locked, suspect } = expected;
    expect(repository.flagsOf(keep)).toEqual({ keep: true, hold: null, lockedUntil: null });
    expect(repository.flagsOf(hold)).toMatchObject({ keep: false, hold: 'wanted by the auditors' });
    expect(repository.flagsOf(locked).lockedUntil).toMatch(/^2026-12-24T16:00/);
    expect(sealed.filter(({ mark }) => mark).map(({ mark }) => mark)).toMatchObject([
      { restorePointId: suspect, state: 'suspect', why: { code: 'AUDIT_MISMATCH' } },
    ]);
    const { restorePointId, run } = expected.open;
    expect(repository.listOpen()).toMatchObject([{ restorePointId, run, disks: ['d0'] }]);
    const late = repository.openRestorePoint(specOf(expected.aborted.run));
    await expect(late).rejects.toMatchObject({ code: 'RESTORE_POINT_ABORTED' });
  });

  test('every disk of every restore point is what it was; no check finds anything', async () => {
    await opened();
    const { sealed } = copy.expected;
    expect(await restoreAll(copy, sealed)).toEqual(asExpected(sealed));
    for (const depth of ['quick', 'sums', 'full'] as const)
      expect(await copy.check({ depth })).toMatchObject({ whole: true, damages: [], marked: [], healed: [] });
    expect(await copy.check({ depth: 'quick' })).toMatchObject({ restorePoints: 5, packs: 8 });
  });

  test('what was removed comes back whole', async () => {
    await opened();
    const { removed } = copy.expected;
    await copy.repository.restoreFromTrash(removed.restorePointId);
    expect(await restoreAll(copy, [removed])).toEqual(asExpected([removed]));
    expect((await copy.check()).damages).toEqual([]);
  });

  test('the open run goes on from its cursor', async () => {
    await opened();
    expect(await finishOpenRun(copy)).toEqual([1, 1, 1]);
    await expectOld(copy);
    expect((await copy.check()).damages).toEqual([]);
  });

  test('the next backup is an increment, and old restore points stay what they were', async () => {
    await opened();
    const vm = goldenVms.mail;
    const { content, key } = goldenRuns.mailLast.disks[0]!;
    const changed = Buffer.from(content);
    changed.fill('new', 100, 2000);
    const run = runOf(9);
    const place = { vm: { vmId: vm.vmId, hostId: hostId('h1') }, lineage: vm.lineage, blockSize: 262_144 };
    const { restorePointId, base } = await copy.repository.openRestorePoint(specOf(run, place));
    expect(base).toMatchObject({ referencePoint: { platformId: `td-golden-${goldenRuns.mailLast.run}` } });
    const plan = { diskKey: key, mode: 'cbt' as const, baseRestorePointId: base!.restorePointId };
    const disk = planOf(content.length, { ...plan, identity: `identity of ${key}` });
    const assignment = await copy.repository.assignTransfer({
      restorePointId,
      run,
      disk,
      checkpoint: 'c',
      assignment: 1,
    });
    expect(assignment).toMatchObject({ mode: 'cbt', alsoRead: [] });
    const { registrar } = copy.repository;
    const tracked = [{ offset: 100, length: 1900 }];
    await handTransfer({ registrar, sink: copy.sink, assignment, disk: changed, changed: tracked });
    const { manifest } = await copy.repository.seal(sealOf(restorePointId, run));
    expect(manifest.disks[0]!.conservation).toMatchObject({
      storedBytes: 262_144,
      deduplicatedBytes: 0,
      unchangedBytes: content.length - 262_144,
    });
    await copy.shut();
    await copy.open();
    await expectOld(copy);
    expect(await copy.check()).toMatchObject({ damages: [], restorePoints: 6 });
  });
});

async function expectOld(copy: GoldenCopy): Promise<void> {
  const { sealed } = copy.expected;
  expect(await restoreAll(copy, sealed)).toEqual(asExpected(sealed));
}

test('v1-encrypted opens by its passphrase as well, and by no other', async () => {
  const copy = await copyGolden('v1-encrypted');
  try {
    await expect(copy.open({ kind: 'passphrase', passphrase: 'zwei Boxkaempfer' })).rejects.toMatchObject({
      code: 'WRONG_KEY',
    });
    await copy.open(goldenPassphrase('v1-encrypted'));
    await expectOld(copy);
  } finally {
    await copy.remove();
  }
});
