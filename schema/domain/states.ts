/** States and outcomes, as stored in the catalog, the manifest and the search attributes. */

export const sessionStates = ['Starting', 'Working', 'WaitingRetry', 'Stopping', 'Postprocessing', 'Stopped'] as const;
export type SessionState = (typeof sessionStates)[number];

/** Ordered from best to worst, `None` being "not ended". */
export const sessionResults = ['None', 'Success', 'Warning', 'Failed'] as const;
export type SessionResult = (typeof sessionResults)[number];

export const worstResult = (results: readonly SessionResult[]): SessionResult =>
  results.reduce<SessionResult>(
    (worst, result) => (sessionResults.indexOf(result) > sessionResults.indexOf(worst) ? result : worst),
    'None',
  );

/** Steps of `vmBackup`, in the order of the design's table. */
export const vmSteps = [
  'waiting',
  'opening',
  'rehearsing',
  'inspecting',
  'preparing-guest',
  'checkpoint',
  'transferring',
  'releasing',
  'sealing',
  'recording',
  'undoing',
  'done',
] as const;
export type VmStep = (typeof vmSteps)[number];

/** How a restore point was read, never what it is: each is restorable on its own. */
export type ReadMode = 'full' | 'cbt' | 'comparison';

/** What a guest's owner asks for, and what was reached. */
export type ConsistencyPolicy = 'require' | 'prefer' | 'none';
export type ConsistencyReached = 'application' | 'filesystem' | 'crash';

/** How the payload of a stored block is encoded. */
export type Codec = 'none' | 'lz4' | 'zstd';
export const codecs = ['none', 'lz4', 'zstd'] as const;

/** What a job asks for; what each means is decided by measurement (`engines/mover/block-codec.ts`). */
export const compressions = ['none', 'fast', 'balanced', 'small', 'auto'] as const;
export type Compression = (typeof compressions)[number];
/** One that stays as it is for a whole transfer. */
export type CompressionLevel = Exclude<Compression, 'auto'>;

export const blockSizes = [256 * 1024, 512 * 1024, 1024 * 1024, 4 * 1024 * 1024] as const;
export const DEFAULT_BLOCK_SIZE = 1024 * 1024;

export type Finding = { level: 'info' | 'warning'; code: string; message: string };
