/** Work that takes long: it tells how far it is, and ends early with the signal's reason. */
import type { MaintenanceProgress } from '../../../schema/domain/maintenance.ts';

export type LongWork = { signal: AbortSignal; onProgress: (progress: MaintenanceProgress) => void };
