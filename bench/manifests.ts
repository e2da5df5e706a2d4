/** Manifests of restore points that nobody backed up, straight into a repository's folder. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { manifestFile } from '../engines/repository/storage/documents.ts';
import type { Manifest } from '../schema/domain/restore-point.ts';
import { encodeManifest } from '../schema/repository/documents.ts';
import { FORMAT_VERSION } from '../schema/repository/limits.ts';
import { plainVault } from '../schema/repository/vault.ts';
import { DISK, MAIN, planOf, runOf, sealOf, specOf } from '../tests/fixtures/repository/test-repository.ts';

const START_MS = Date.parse('2026-01-01T00:00:00.000Z');

/** `number`: in the order of their seals, and part of the run's key. */
export type Kept = Pick<Manifest, 'restorePointId' | 'lineage'> & {
  number: number;
  vmId: string;
  disk: { root: string; height: number; sizeBytes: number; blockSize: number };
};

function manifestOf({ restorePointId, lineage, number, vmId, disk }: Kept): Manifest {
  const { vm, vmName, jobId, sessionId, nominalTime } = specOf(runOf(number));
  const { takenAt, referencePoint, consistency, warnings, leftOut } = sealOf(restorePointId, runOf(number));
  const { identity, mode, reason } = planOf(disk.sizeBytes);
  const zero = { unallocatedBytes: 0, zeroBytes: 0, filteredBytes: 0, deduplicatedBytes: 0, storedBytes: 0 };
  return {
    format: FORMAT_VERSION,
    repository: MAIN,
    restorePointId,
    run: runOf(number),
    lineage,
    vm: { vmId, hostId: vm.hostId, name: vmName },
    jobId,
    sessionId,
    nominalTime,
    takenAt,
    consistency,
    warnings,
    leftOut,
    referencePoint,
    sealedAt: new Date(START_MS + number * 1000).toISOString(),
    writer: 'bench',
    baseRestorePointId: null,
    disks: [
      {
        ...disk,
        diskKey: DISK,
        identity,
        mode,
        reason,
        filterDigest: null,
        baseRoot: null,
        audit: { sampled: 0, mismatched: 0 },
        conservation: { ...zero, sizeBytes: disk.sizeBytes, unchangedBytes: disk.sizeBytes },
        readBytes: 0,
        sentBytes: 0,
      },
    ],
    configurationRoot: null,
    ledgerDigest: '0'.repeat(64),
    suspect: false,
  };
}

/** Not durably: whoever opens the repository finds it. */
export function writeManifestFile(folder: string, kept: Kept): void {
  const of = manifestFile(plainVault, kept.vmId, kept.restorePointId);
  const file = path.join(folder, of.file);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, plainVault.sealText(of, encodeManifest(manifestOf(kept)).text));
}
