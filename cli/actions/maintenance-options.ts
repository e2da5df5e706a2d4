/** Options of the commands that maintain a repository. */
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { CheckRequest } from '../../schema/domain/maintenance.ts';
import type { SecretOptions } from '../secret-options.ts';
import type { ReadOptions } from './job.ts';

export type MaintenanceOptions = ReadOptions & { detach?: boolean };
/** `offline`: the folder. */
export type OfflineOptions = SecretOptions & { offline?: string };
export type CheckOptions = MaintenanceOptions &
  OfflineOptions & {
    full?: boolean;
    sums?: boolean;
    vm?: string;
    restorePoint?: string;
    maxBytes?: number;
    maxTime?: number;
  };
export type DryRunOptions = MaintenanceOptions & OfflineOptions & { dryRun?: boolean };
export type OpenPointsOptions = MaintenanceOptions & { abort?: string };
/** `today`: as it was typed. */
export type ResetClockOptions = MaintenanceOptions & { today: string };
export type StatsOptions = ReadOptions & OfflineOptions;

/** BAD_REQUEST: what excludes one another. */
export function checkDepth({ full, sums }: Pick<CheckOptions, 'full' | 'sums'>): CheckRequest['depth'] {
  if (full && sums) throw new TidemarkError('BAD_REQUEST', 'give either --full or --sums');
  return full ? 'full' : sums ? 'sums' : 'quick';
}
