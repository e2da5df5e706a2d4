/** What the verbs on restore points work with. */
import type { Seams } from '../../../schema/domain/seams.ts';
import type { RepositoryFile } from '../../../schema/repository/documents.ts';
import type { Vault } from '../../../schema/repository/vault.ts';
import type { Storage } from '../storage/storage.ts';
import type { Turns } from '../storage/turns.ts';
import type { SoundMaps } from './also-read.ts';
import type { DigestIndex } from './digest-index.ts';
import type { PageReader } from './page-reader.ts';
import type { PageStore } from './page-store.ts';
import type { Points } from './points.ts';

export type Parts = {
  storage: Storage;
  vault: Vault;
  file: RepositoryFile;
  seams: Seams;
  points: Points;
  index: DigestIndex;
  pages: PageReader;
  pageStore: PageStore;
  /** Verbs of a run, by run key; what writes map pages, as `pages`. */
  turns: Turns;
  soundMaps: SoundMaps;
};
