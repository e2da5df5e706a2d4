/**
 * The one who tells senders how fast they may send: one per repository process, since all connections of all proxies end
 * there. Rules of the site between two repositories of one process are held together; each other process holds them alone.
 */
import { messageOf } from '../../../schema/domain/errors.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import { type Grant, type GrantedConnection, Grants, type LimitsConfig } from './grants.ts';

export type { Grant, LimitsConfig } from './grants.ts';

/** A lane that tells what each of its connections has sent so far, payload bytes. */
export type LaneUsage = { usage(): Promise<Record<string, number>> };
export type ThrottledConnection = Omit<GrantedConnection, 'repositoryId'> & {
  lane: LaneUsage;
  /** Called whenever it changes. */
  tell(grant: Grant): void;
};
/** What a target has of it. */
export type TargetThrottle = {
  /** The grant to begin with. */
  begin(connection: ThrottledConnection): Grant;
  end(name: string): void;
};

/** So old is what is known of a transfer that began or stopped to use its share. */
const TICK_MS = 100;

export class Throttle {
  readonly #seams: Pick<Seams, 'clock' | 'log' | 'meter'>;
  readonly #grants = new Grants();
  readonly #connections = new Map<string, ThrottledConnection>();
  #timer: NodeJS.Timeout | null = null;
  #isMeasuring = false;

  constructor(seams: Pick<Seams, 'clock' | 'log' | 'meter'>) {
    this.#seams = seams;
  }

  /** Holds for connections that are open, too. */
  configure(config: LimitsConfig): void {
    this.#grants.configure(config);
    this.#share();
  }

  ofRepository(repositoryId: string): TargetThrottle {
    return {
      begin: (connection) => {
        this.#grants.begin({ ...connection, repositoryId });
        this.#connections.set(connection.name, connection);
        this.#share(connection.name);
        this.#timer ??= setInterval(() => void this.#tick(), TICK_MS);
        return this.#grants.grantOf(connection.name);
      },
      end: (name) => {
        this.#grants.end(name);
        if (!this.#connections.delete(name)) return;
        if (this.#connections.size === 0) this.close();
        this.#share();
      },
    };
  }

  close(): void {
    if (this.#timer) clearInterval(this.#timer);
    this.#timer = null;
  }

  /** `except`: hears it from the answer. */
  #share(except?: string): void {
    for (const name of this.#grants.share(this.#seams.clock.now()))
      if (name !== except) this.#connections.get(name)?.tell(this.#grants.grantOf(name));
  }

  async #tick(): Promise<void> {
    if (this.#isMeasuring) return;
    this.#isMeasuring = true;
    try {
      if (this.#grants.isLimiting) await this.#measure();
    } finally {
      this.#isMeasuring = false;
    }
    this.#share();
  }

  async #measure(): Promise<void> {
    const { clock, log } = this.#seams;
    const lanes = new Set([...this.#connections.values()].map(({ lane }) => lane));
    await Promise.all(
      [...lanes].map(async (lane) => {
        try {
          const usage = await lane.usage();
          const atMs = clock.monotonic();
          for (const [name, bytes] of Object.entries(usage)) this.#grants.measure(name, bytes, atMs);
        } catch (error) {
          // A lane that died takes its connections with it.
          log.debug('a lane did not tell what it used', { error: messageOf(error) });
        }
      }),
    );
  }
}
