/** The verbs of checking, and how what they work with is opened. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { RecordSource } from '../../../schema/domain/seams.ts';
import type { VaultKeys } from '../../../schema/repository/keys.ts';
import type { Repository, RepositoryOptions } from '../repository.ts';
import type { Parts } from '../restore-point/parts.ts';
import type { CheckParts } from './check-parts.ts';
import { checkRepository } from './check.ts';
import { loadMarks } from './marks.ts';
import { openVerifiedPacks } from './verified-packs.ts';

export type Checking = Pick<Repository, 'check' | 'markOf'> & { close(): Promise<void> };

export async function openChecking(
  parts: Parts & { source: RecordSource },
  keys: VaultKeys | null,
  { packWorker }: Pick<RepositoryOptions, 'packWorker'>,
): Promise<Checking> {
  const { storage, seams, file, turns } = parts;
  const { log, clock } = seams;
  const checkParts: CheckParts = {
    ...parts,
    marks: await loadMarks(parts, log),
    verified: await openVerifiedPacks({ staging: storage.staging, log, clock }),
    openPackWorker: packWorker ? () => packWorker({ uuid: file.uuid, keys }) : null,
  };
  return {
    check: (request, work) => turns.take('check', () => checkRepository(checkParts, request, work)),
    markOf: (id: RestorePointId) => checkParts.marks.of(id),
    close: () => checkParts.verified.close(),
  };
}
