/**
 * Brakes for the storage that production lives on: how fast a proxy reads from a host or a datastore, or writes what is
 * restored there, and how many requests it has under way, less of them as soon as they take longer than is bearable. In the
 * main thread, for all lanes. Reads and writes have brakes of their own: written is into memory first, and says little of reads.
 */
import type { BrakeConfig } from '../../schema/domain/configuration.ts';
import { formatBytes } from '../../schema/domain/figures.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import { TokenBucket } from './throttle/token-bucket.ts';
import { ByteBudget } from './waiting.ts';

export type Direction = 'read' | 'write';
const rateNames = { read: 'readBytesPerSecond', write: 'writeBytesPerSecond' } as const;
const doneWords = { read: 'read', write: 'written' } as const;

const MOST_REQUESTS = 256;
/** How much the newest latency counts. */
const NEWEST = 0.3;
/** Below this part of the bound the brake is let go, above it the number of requests stays. */
const CALM = 0.8;
/** Between two steps down, so that the requests begun since can show what the last one did. */
const STEP_DOWN_MS = 200;
const STEP_UP_MS = 500;
const SAID_MS = 2000;
const FIRST_PAUSE_MS = 25;
const LONGEST_PAUSE_MS = 2000;

/** One host or datastore. */
export class Brake {
  readonly #clock: Clock;
  readonly #direction: Direction;
  readonly #bucket: TokenBucket;
  readonly #places: ByteBudget;
  #config: BrakeConfig;
  /** Requests that may be under way; places above it are kept back. */
  #allowed = MOST_REQUESTS;
  #inFlight = 0;
  /** Before each request, once fewer than one under way would be needed. */
  #pauseMs = 0;
  #latencyMs = 0;
  #steppedAtMs = -Infinity;

  constructor(config: BrakeConfig, clock: Clock, direction: Direction = 'read') {
    this.#config = config;
    this.#clock = clock;
    this.#direction = direction;
    this.#bucket = new TokenBucket(() => clock.monotonic());
    this.#places = new ByteBudget(MOST_REQUESTS);
    this.configure(config);
  }

  configure(config: BrakeConfig): void {
    this.#config = config;
    this.#bucket.rate = config[rateNames[this.#direction]] ?? 0;
    if (config.latencyMs === null) this.#release();
  }

  /** Requests that may be under way now. */
  get allowed(): number {
    return this.#allowed;
  }

  /** Why a request has to wait, in words; null: it need not because of this. */
  get reason(): string | null {
    const { name, [rateNames[this.#direction]]: rate = null } = this.#config;
    if (this.#pauseMs > 0 || this.#inFlight >= this.#allowed)
      return `brake: latency of ${name} is ${Math.round(this.#latencyMs)} ms`;
    return rate === null ? null : `brake: ${name} is ${doneWords[this.#direction]} at ${formatBytes(rate)}/s at most`;
  }

  /** Resolves when a request may begin. */
  async begin(bytes: number): Promise<void> {
    await this.#bucket.take(bytes);
    await this.#places.take(1);
    this.#inFlight += 1;
    if (this.#pauseMs > 0) await this.#clock.sleep(this.#pauseMs);
  }

  /** `latencyMs` null: it did not come to an end. */
  end(latencyMs: number | null): void {
    const wasFull = this.#inFlight >= this.#allowed;
    this.#inFlight -= 1;
    this.#places.give(1);
    const bound = this.#config.latencyMs;
    if (latencyMs === null || bound === null) return;
    this.#latencyMs = this.#latencyMs === 0 ? latencyMs : this.#latencyMs * (1 - NEWEST) + latencyMs * NEWEST;
    const sinceMs = this.#clock.monotonic() - this.#steppedAtMs;
    if (this.#latencyMs > bound && sinceMs >= Math.max(STEP_DOWN_MS, this.#latencyMs)) this.#stepDown();
    else if (this.#latencyMs < bound * CALM && sinceMs >= STEP_UP_MS && (wasFull || this.#pauseMs > 0)) this.#stepUp();
  }

  /** Half as many; with one alone, longer pauses between them. */
  #stepDown(): void {
    this.#steppedAtMs = this.#clock.monotonic();
    const running = Math.min(this.#allowed, this.#inFlight + 1);
    if (running > 1) this.#allow(Math.floor(running / 2));
    else {
      this.#allow(1);
      this.#pauseMs = Math.min(LONGEST_PAUSE_MS, Math.max(FIRST_PAUSE_MS, this.#pauseMs * 2));
    }
  }

  /** Shorter pauses, then one more. */
  #stepUp(): void {
    this.#steppedAtMs = this.#clock.monotonic();
    if (this.#pauseMs > 0) this.#pauseMs = this.#pauseMs > FIRST_PAUSE_MS ? this.#pauseMs / 2 : 0;
    else if (this.#allowed < MOST_REQUESTS) this.#allow(this.#allowed + 1);
  }

  #release(): void {
    this.#pauseMs = 0;
    this.#latencyMs = 0;
    this.#allow(MOST_REQUESTS);
  }

  /** What is under way already goes on: room may be negative for a while. */
  #allow(requests: number): void {
    this.#places.give(requests - this.#allowed);
    this.#allowed = requests;
  }
}

/** One of a disk's; under way from when it may begin. */
type Request = { work: number; held: Brake[]; isUnderWay: boolean };

/** All brakes of a proxy's process, by their names. */
export class Brakes {
  readonly #clock: Clock;
  readonly #direction: Direction;
  readonly #brakes = new Map<string, Brake>();
  /** Requests that wait or are under way, by lane: those of one that dies end with it. */
  readonly #requests = new Map<number, Map<number, Request>>();
  #lastRequest = 0;

  constructor(clock: Clock, direction: Direction) {
    this.#clock = clock;
    this.#direction = direction;
  }

  /** What the newest transfer says of them holds. */
  configure(configs: readonly BrakeConfig[]): void {
    for (const config of configs) {
      const known = this.#brakes.get(config.name);
      if (known) known.configure(config);
      else this.#brakes.set(config.name, new Brake(config, this.#clock, this.#direction));
    }
  }

  /** Why a request would have to wait now; null: it would not. */
  reasonOf(configs: readonly BrakeConfig[]): string | null {
    for (const { name } of configs) {
      const reason = this.#brakes.get(name)?.reason ?? null;
      if (reason !== null) return reason;
    }
    return null;
  }

  /** The storage owes that disk (`work`: its number) an answer. */
  isUnderWay(work: number): boolean {
    for (const requests of this.#requests.values())
      for (const request of requests.values()) if (request.isUnderWay && request.work === work) return true;
    return false;
  }

  /** Number of the request, once it may begin. */
  async begin(of: { lane: number; work: number }, configs: readonly BrakeConfig[], bytes: number): Promise<number> {
    const number = (this.#lastRequest += 1);
    const requests = this.#requests.get(of.lane) ?? new Map<number, Request>();
    this.#requests.set(of.lane, requests);
    const request: Request = { work: of.work, held: [], isUnderWay: false };
    requests.set(number, request);
    for (const { name } of configs) {
      const brake = this.#brakes.get(name)!;
      await brake.begin(bytes);
      // The lane died meanwhile.
      if (requests.has(number)) request.held.push(brake);
      else brake.end(null);
    }
    request.isUnderWay = true;
    return number;
  }

  /** The disk whose request it was; null: it ended with its lane. */
  end(lane: number, number: number, latencyMs: number | null): number | null {
    const requests = this.#requests.get(lane);
    const request = requests?.get(number);
    for (const brake of request?.held ?? []) brake.end(latencyMs);
    requests?.delete(number);
    return request?.work ?? null;
  }

  endLane(lane: number): void {
    for (const request of this.#requests.get(lane)?.keys() ?? []) this.end(lane, request, null);
    this.#requests.delete(lane);
  }
}

/** Said of a disk until it has not been held back for a while: requests begin and end many times a second. */
export class BrakeNote {
  readonly #clock: Clock;
  #said: { reason: string; atMs: number } | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  say(reason: string): void {
    this.#said = { reason, atMs: this.#clock.monotonic() };
  }

  get now(): string | null {
    if (this.#said && this.#clock.monotonic() - this.#said.atMs > SAID_MS) this.#said = null;
    return this.#said?.reason ?? null;
  }
}

/** Said by a lane at the end of a request that it began with `beginRequest`. */
export type RequestEnd = { request: number; latencyMs: number | null };

const TOLD_AGAIN_MS = 1000;

type BrakedWork = {
  brakes: readonly BrakeConfig[];
  /**
   * A request of it is held back. `isUnderWay`: another of its requests is not, and it is for the storage to answer that:
   * storage that hangs fills the places of a brake, and whoever waits for them would wait for ever.
   */
  brake(reason: string, isUnderWay: boolean): void;
  /** The storage has answered. */
  moved(): void;
};

/** Serves the lanes of a pool: when a request of a disk may begin, and what it took. `workOf`: undefined when it is over. */
export function brakeCalls(brakes: Brakes, workOf: (id: number) => BrakedWork | undefined) {
  return {
    begin: async (lane: number, id: number, bytes: number): Promise<number> => {
      const of = workOf(id)?.brakes ?? [];
      const tell = (): void => {
        const reason = brakes.reasonOf(of);
        if (reason !== null) workOf(id)?.brake(reason, brakes.isUnderWay(id));
      };
      tell();
      const again = setInterval(tell, TOLD_AGAIN_MS);
      try {
        return await brakes.begin({ lane, work: id }, of, bytes);
      } finally {
        clearInterval(again);
      }
    },
    end: (lane: number, { request, latencyMs }: RequestEnd): void => {
      const id = brakes.end(lane, request, latencyMs);
      if (id !== null && latencyMs !== null) workOf(id)?.moved();
    },
  };
}
