/** A repository as its owning process sees it: one folder, locked; verbs by restore point, idempotent by run key. */
import type { DiskKey, RepositoryId, RestorePointId, RunKey } from '../../schema/domain/ids.ts';
import type {
  AbortOutcome,
  OpenedRestorePoint,
  RestorePointSpec,
  SealOutcome,
  SealRequest,
  TransferAssignment,
  TransferRequest,
} from '../../schema/domain/restore-point.ts';
import type { RestoreSource, Seams, TransferRegistrar } from '../../schema/domain/seams.ts';
import type { DeclaredDisk } from '../../schema/repository/documents.ts';
import type { VaultKeys } from '../../schema/repository/keys.ts';
import type { Secret } from '../../schema/repository/secrets.ts';
import type { Storage } from './storage/storage.ts';

export type RepositoryOptions = {
  /** Made when missing or empty. */
  storage: Storage;
  repositoryId: RepositoryId;
  /** Of an encrypted one; a new one with it is made encrypted. Null: it is, or will be, plain. */
  secret: Secret | null;
  /** For the index, a cache: may be lost at any time. */
  indexFolder: string;
  seams: Seams;
};

export type Repository = {
  readonly repositoryId: RepositoryId;
  /** What its lane threads write and read with; null in a plain one. */
  readonly laneKeys: VaultKeys | null;
  /** Same run key: the same restore point again. RESTORE_POINT_SEALED, RESTORE_POINT_ABORTED, REPOSITORY_FULL. */
  openRestorePoint(spec: RestorePointSpec): Promise<Omit<OpenedRestorePoint, 'endpoint'>>;
  /** REPOSITORY_FULL when the disks clearly cannot fit. */
  declareDisks(of: { restorePointId: RestorePointId; run: RunKey; disks: DeclaredDisk[] }): Promise<void>;
  /** The fence is durable when it resolves. Same assignment number: the same answer. FENCED for a lower number. */
  assignTransfer(request: TransferRequest): Promise<Omit<TransferAssignment, 'endpoint'>>;
  /** NOT_CONSERVED, DAMAGED_BLOCK, REPOSITORY_FULL, RESTORE_POINT_ABORTED. Sealed before: the same outcome. */
  seal(request: SealRequest): Promise<SealOutcome>;
  /** Never opened (`restorePointId` null when it never became known): aborted, and an opening that comes late is refused. */
  abort(of: { restorePointId: RestorePointId | null; run: RunKey }): Promise<AbortOutcome>;
  readonly registrar: TransferRegistrar;
  readonly restoreSource: RestoreSource;
  /** For the mover's rehearsal: throws when no open restore point of this run is known. */
  rehearse(restorePointId: RestorePointId, run: RunKey): void;
  /** RESTORE_POINT_NOT_FOUND. */
  describeSealed(restorePointId: RestorePointId): SealOutcome;
  /** By time of the checkpoint. */
  listSealed(): SealOutcome[];
  listOpen(): { restorePointId: RestorePointId; run: RunKey; disks: DiskKey[]; lastWriteAt: string }[];
  /** After the mover's target. Keeps the index for the next start and gives the folder free. */
  close(): Promise<void>;
};
