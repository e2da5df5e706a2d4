/**
 * Holds one repository open. When it cannot be opened (not a repository, owned by another process, its disk gone) its
 * verbs fail with that reason, and opening is tried again by the next verb, at most each 2 s.
 */
import { messageOf } from '../../schema/domain/errors.ts';
import type { Clock, Log } from '../../schema/domain/seams.ts';
import type { OpenedRepository } from './repository-activities.ts';

export type HeldRepository = OpenedRepository & { close(): Promise<void> };
export type RepositoryHolderOptions = {
  repositoryId: string;
  open: () => Promise<HeldRepository>;
  clock: Clock;
  log: Log;
};

const AGAIN_AFTER_MS = 2000;

export class RepositoryHolder {
  readonly #options: RepositoryHolderOptions;
  #held: Promise<HeldRepository> | null = null;
  #failure: { error: unknown; atMs: number } | null = null;

  constructor(options: RepositoryHolderOptions) {
    this.#options = options;
  }

  /** The repository, opened by the first who asks; throws why it cannot be. */
  open(): Promise<HeldRepository> {
    const { clock } = this.#options;
    if (this.#failure && clock.monotonic() - this.#failure.atMs < AGAIN_AFTER_MS)
      return Promise.reject(this.#failure.error);
    this.#held ??= this.#try();
    return this.#held;
  }

  /** Gives the folder free. */
  async close(): Promise<void> {
    const held = await this.#held?.catch(() => null);
    this.#held = null;
    await held?.close();
  }

  async #try(): Promise<HeldRepository> {
    const { open, clock, log, repositoryId } = this.#options;
    try {
      const held = await open();
      this.#failure = null;
      log.info('repository is open', { repository: repositoryId });
      return held;
    } catch (error) {
      this.#held = null;
      this.#failure = { error, atMs: clock.monotonic() };
      log.error('repository cannot be opened', { repository: repositoryId, error: messageOf(error) });
      throw error;
    }
  }
}
