/** The verbs of checking, repairing and counting. */
import type { Repository } from '../repository.ts';
import type { CheckParts } from './check-parts.ts';
import { checkRepository } from './check.ts';
import { packWorkerOf } from './pack-worker.ts';
import { repairRepository } from './repair.ts';
import { createStatistics, type Statistics } from './statistics.ts';

export type Checking = Pick<Repository, 'check' | 'markOf' | 'repair'> & { statistics: Statistics };

/** `deadBytes`: see `createStatistics`. */
export const createChecking = (parts: CheckParts, deadBytes: () => number | null): Checking => ({
  check: (request, work) => parts.turns.take('check', () => checkRepository(parts, request, work)),
  repair: (work) =>
    parts.turns.take('check', () =>
      parts.turns.take('collection', () => repairRepository(parts, work, packWorkerOf(parts))),
    ),
  markOf: (id) => parts.marks.of(id),
  statistics: createStatistics(parts, deadBytes),
});
