/** Random disks with a printed seed, and the plain data a transfer is ordered with. */
import { randomInt } from 'node:crypto';
import { open } from 'node:fs/promises';
import { diskKey, restorePointId, runKey } from '../../../schema/domain/ids.ts';
import type { DiskAccess, Endpoint } from '../../../schema/domain/hypervisor.ts';
import type { TransferAssignment } from '../../../schema/domain/restore-point.ts';
import type { TestDisk } from './source-lane.ts';

/** Xorshift; TIDEMARK_TEST_SEED repeats a run. */
export function seeded(): { seed: number; next: (below: number) => number } {
  const seed = Number(process.env['TIDEMARK_TEST_SEED'] ?? randomInt(1, 2 ** 31));
  console.log(`seed ${seed}`);
  let state = seed | 1;
  const next = (below: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
  return { seed, next };
}

/** Pieces of `step` bytes: random bytes, text, zeros or a repeat of an earlier one. */
export async function writeRandomDisk(
  file: string,
  sizeBytes: number,
  next: (below: number) => number,
  kinds = 4,
): Promise<void> {
  const step = 256 * 1024;
  const handle = await open(file, 'w');
  const repeated = Buffer.alloc(step, `repeated ${next(1000)} `);
  for (let at = 0; at < sizeBytes; at += step) {
    const length = Math.min(step, sizeBytes - at);
    await handle.write(pieceOf(next(kinds), step, next, repeated), 0, length, at);
  }
  await handle.close();
}

function pieceOf(kind: number, step: number, next: (below: number) => number, repeated: Buffer): Buffer {
  if (kind === 1) return Buffer.alloc(step, `text ${next(1_000_000)} `);
  if (kind === 2) return Buffer.alloc(step);
  if (kind === 3) return repeated;
  const words = new Uint32Array(step / 4);
  for (let i = 0; i < words.length; i += 1) words[i] = next(2 ** 32);
  return Buffer.from(words.buffer);
}

export const TEST_DISK = diskKey('d0');

export function orderOf(
  of: { disk: TestDisk; sizeBytes: number; blockSize: number; endpoint: Endpoint } & Partial<TransferAssignment>,
): {
  access: DiskAccess;
  assignment: TransferAssignment;
  signal: AbortSignal;
} {
  const { disk, sizeBytes, ...rest } = of;
  const run = runKey('abcdef012345');
  const access: DiskAccess = {
    run,
    diskKey: TEST_DISK,
    sizeBytes,
    identity: 'test',
    writable: false,
    data: { via: 'simulated', model: JSON.stringify(disk) },
    changes: null,
  };
  const assignment: TransferAssignment = {
    restorePointId: restorePointId('0123456789abcdef0123456789abcdef'),
    run,
    diskKey: TEST_DISK,
    fence: 1,
    sizeBytes,
    codec: 'zstd',
    mode: 'full',
    alsoRead: [],
    ...rest,
  };
  return { access, assignment, signal: new AbortController().signal };
}
