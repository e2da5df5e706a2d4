/** A repository's storage as worker processes and their lane threads use it: counted, and patient with what passes. */
import { openStorage, type Storage, type StorageDescription } from '../../engines/repository/storage/storage.ts';
import { withMetrics } from '../../engines/repository/storage/with-metrics.ts';
import { withRetry } from '../../engines/repository/storage/with-retry.ts';
import type { Seams } from '../../schema/domain/seams.ts';

export const openRepositoryStorage = (description: StorageDescription, seams: Seams): Storage =>
  withRetry(withMetrics(openStorage(description), seams), seams);
