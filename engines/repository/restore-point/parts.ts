/** What the verbs on restore points work with. */
import type { DiskKey, RestorePointId } from '../../../schema/domain/ids.ts';
import type { Manifest, SealOutcome } from '../../../schema/domain/restore-point.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import type { RepositoryFile } from '../../../schema/repository/documents.ts';
import type { Vault } from '../../../schema/repository/vault.ts';
import type { Storage } from '../storage/storage.ts';
import type { Turns } from '../storage/turns.ts';
import type { SoundMaps } from './also-read.ts';
import type { Damages } from './damages.ts';
import type { DigestIndex } from './digest-index.ts';
import type { PageReader } from './page-reader.ts';
import type { PageStore } from './page-store.ts';
import type { Points } from './points.ts';
import type { Reliance } from './reliance.ts';

export type Parts = {
  storage: Storage;
  vault: Vault;
  file: RepositoryFile;
  seams: Seams;
  points: Points;
  /** Whatever is asked of it is touched. */
  index: DigestIndex;
  reliance: Reliance;
  pages: PageReader;
  pageStore: PageStore;
  /** Verbs of a run, by run key; what writes map pages, as `pages`. */
  turns: Turns;
  soundMaps: SoundMaps;
  damages: Damages;
  sealing: SealingHooks;
  tracking: TrackingTrust;
};

/** Whether change tracking has lost something, by the restore point since which it counts changes, and by disk. */
export type TrackingTrust = {
  /** Durable when it resolves. */
  distrust(since: RestorePointId, disk: DiskKey): Promise<void>;
  /** Also where what was said of the restore point cannot be read. */
  isDistrusted(since: RestorePointId, disk: DiskKey): boolean;
};

/** What has to happen around the commit point. */
export type SealingHooks = {
  /** Before the manifest exists. When it fails nothing is sealed. */
  before(manifest: Manifest): Promise<void>;
  /** The manifest is durable. Does not fail. */
  after(sealed: SealOutcome): Promise<void>;
};
