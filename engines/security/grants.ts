/**
 * What a repository lets a machine do, as 32 bytes in HELLO: a keyed hash over machine, restore point, run, disk and fence.
 * Worth nothing without that machine's certificate, so it may be told to anybody; kept nowhere, so it outlives a restart.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import path from 'node:path';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { DiskKey, MachineId, RestorePointId, RunKey } from '../../schema/domain/ids.ts';
import { makePrivateFolder, readIfThere, writePrivate } from './private-files.ts';

/** Of a restore: `diskKey` empty, any disk of the restore point; `fence` is when it ends, in seconds since the epoch. */
export type Grant = {
  purpose: 'backup' | 'restore';
  machineId: MachineId;
  restorePointId: RestorePointId;
  run: RunKey;
  diskKey: DiskKey | '';
  fence: number;
};

/** Longer than one try of a disk may take; the next disk, and the next try, has a new one. */
const RESTORE_GRANT_MS = 72 * 3_600_000;
export const restoreGrantEnd = (nowMs: number): number => Math.ceil((nowMs + RESTORE_GRANT_MS) / 1000);

/** Made when it is missing: what was granted before is then refused, and granted anew by the next try. Hex. */
export async function loadGrantKey(securityFolder: string): Promise<string> {
  const file = path.join(securityFolder, 'grants.key');
  const kept = (await readIfThere(file))?.trim();
  if (kept && /^[0-9a-f]{64}$/.test(kept)) return kept;
  await makePrivateFolder(securityFolder);
  const fresh = randomBytes(32).toString('hex');
  await writePrivate(file, `${fresh}\n`);
  return fresh;
}

/** Hex, 32 bytes. */
export const signGrant = (key: string, of: Grant): string =>
  createHmac('sha256', Buffer.from(key, 'hex'))
    .update(
      `tidemark grant 1\n${[of.purpose, of.machineId, of.restorePointId, of.run, of.fence, of.diskKey].join('\n')}`,
    )
    .digest('hex');

/** PEER_REFUSED: never granted, or no longer. */
export function checkGrant(key: string, of: Grant, token: string, nowMs: number): void {
  const isOurs = timingSafeEqual(Buffer.from(signGrant(key, of), 'hex'), Buffer.from(token, 'hex'));
  const isOver = of.purpose === 'restore' && nowMs >= of.fence * 1000;
  if (isOurs && !isOver) return;
  const { machineId, restorePointId, run, diskKey, fence, purpose } = of;
  const what = `${purpose} of ${diskKey === '' ? '' : `disk ${diskKey}, fence ${fence}, `}restore point ${restorePointId}, run ${run}`;
  const why = isOurs ? 'is not assigned this any longer' : 'was not assigned this';
  throw new TidemarkError('PEER_REFUSED', `machine ${machineId} ${why}: ${what}`, {
    machine: machineId,
  });
}
