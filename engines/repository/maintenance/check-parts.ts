/** What a check works with, besides what other maintenance does. */
import type { MaintenanceParts } from './maintenance-parts.ts';
import type { PackWorker } from './pack-worker.ts';
import type { VerifiedPacks } from './verified-packs.ts';

export type CheckParts = MaintenanceParts & {
  verified: VerifiedPacks;
  /** Null: this process does not read packs. */
  openPackWorker: (() => PackWorker) | null;
};
