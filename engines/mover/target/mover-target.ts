/**
 * The target's main thread: one address, lane threads behind it, the registrar beside it.
 *
 * How connections reach lanes. Node can hand neither a socket nor a duplicated descriptor to a worker thread, and two threads that
 * own one descriptor number close each other's files. So each lane listens itself: over TCP all on the same port (SO_REUSEPORT),
 * where the system spreads connections by the hash of their addresses;
 * on a Unix socket the main thread owns the configured path, answers HELLO with GO_TO, and names the lane with the fewest connections given.
 */
import { chmodSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { Endpoint } from '../../../schema/domain/hypervisor.ts';
import type { ConnectionEnds } from '../../../schema/domain/networks.ts';
import type { RestorePointId, RunKey } from '../../../schema/domain/ids.ts';
import type {
  AuditAnswers,
  FinishedWindow,
  RestoreHello,
  RestoreSource,
  Seams,
  TransferHello,
  TransferRegistrar,
} from '../../../schema/domain/seams.ts';
import { type LaneThread, startLaneThread } from '../lane-thread.ts';
import { type Handlers } from '../port-calls.ts';
import { type Door, openDoor } from './door.ts';
import type { Grant, LaneUsage, TargetThrottle, ThrottledConnection } from '../throttle/throttle.ts';
import type { Address } from '../wire-session/secure-ends.ts';
import type { GrantNotice, TargetLaneData, WireTimeouts } from './lane.ts';

export type MoverTargetOptions = {
  /** A Unix socket (its folder becomes 0700, the sockets 0600), or host and port; port 0: the system chooses. */
  listen: Endpoint;
  /** Also here, over TLS, for other machines; port 0: the system chooses. The lanes must have been given certificates. */
  listenSecurely?: Address | undefined;
  laneCount: number;
  /** Thread entry that calls `runTargetLane`. */
  laneEntry: URL;
  /** Plain data for it, e.g. the repository's folder. */
  laneData: unknown;
  registrar: TransferRegistrar;
  restoreSource: RestoreSource;
  /** Throws when no open restore point of this run is known; default: every rehearsal is welcome. */
  rehearse?: (restorePointId: RestorePointId, run: RunKey) => Promise<void> | void;
  /** Who says how fast transfers may be; default: nobody. */
  throttle?: TargetThrottle;
  timeouts?: WireTimeouts;
  seams: Seams;
};

export type MoverTarget = {
  /** Where clients connect; with port 0 the port bound. */
  readonly endpoint: Endpoint;
  /** Where those on other machines do; null: nowhere. */
  readonly secureEndpoint: Address | null;
  /** What is written from now on goes to new packs. What cannot be closed stays open, and is told in the log. */
  closePacks(): Promise<void>;
  /**
   * Plain data for all lanes; they have heard it when it resolves. For those that begin later `laneData` is to say the same.
   * Rejects with the reason of one that could not bear it.
   */
  tell(news: unknown): Promise<void>;
  /** Says HOST_DRAINING to every client, closes packs, ends the threads. */
  close(): Promise<void>;
};

/** A connection as the repository knows it: `begun` settles when it has begun or was refused. */
type Connection = { begun: Promise<unknown>; end(): Promise<void> };
type Lane = { thread: LaneThread; at: Endpoint; connections: Map<string, Connection>; given: number; alive: boolean };

type ThrottledLane = LaneUsage & { tell(notice: GrantNotice): void };
type Share = Pick<ThrottledConnection, 'purpose' | 'transfer' | 'ends'>;
const shareOf = (hello: TransferHello | RestoreHello, ends: ConnectionEnds): Share => ({
  purpose: hello.purpose,
  transfer: `${hello.restorePointId} ${hello.diskKey}`,
  ends,
});

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5000;

/** UNREACHABLE: the address cannot be listened on. */
export async function startMoverTarget(options: MoverTargetOptions): Promise<MoverTarget> {
  const target = new Target(options);
  await target.start();
  return target;
}

class Target implements MoverTarget {
  readonly #options: MoverTargetOptions;
  readonly #lanes: Lane[] = [];
  /** Also of lanes that do not listen yet. */
  readonly #threads = new Set<LaneThread>();
  readonly #restarts = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  #endpoint: Endpoint;
  #secureEndpoint: Address | null;
  #door: Door | null = null;

  constructor(options: MoverTargetOptions) {
    this.#options = options;
    this.#endpoint = options.listen;
    this.#secureEndpoint = options.listenSecurely ?? null;
  }

  get secureEndpoint(): Address | null {
    return this.#secureEndpoint;
  }

  get endpoint(): Endpoint {
    return this.#endpoint;
  }

  async start(): Promise<void> {
    const { listen, laneCount, timeouts } = this.#options;
    if ('unix' in listen) makePrivateFolder(path.dirname(listen.unix));
    try {
      for (let index = 0; index < laneCount; index += 1) {
        this.#lanes[index] = await this.#startLane(index);
        // The first lane finds the port that the others share.
        if (!('unix' in listen)) this.#endpoint = this.#lanes[0]!.at;
      }
      if ('unix' in listen) this.#door = await openDoor(listen.unix, () => this.#nextLanePath(), timeouts);
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async closePacks(): Promise<void> {
    await Promise.all(this.#lanes.filter(({ alive }) => alive).map((lane) => this.#ask(lane, 'closePack')));
  }

  async tell(news: unknown): Promise<void> {
    await Promise.all(
      [...this.#threads].map(({ calls }) =>
        calls.call('tell', news).catch((error: unknown) => {
          // One that ended is replaced by one that begins with it.
          if (!calls.failed) throw error;
        }),
      ),
    );
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#door?.close();
    await Promise.all(this.#restarts);
    await Promise.all(
      this.#lanes.map(async (lane) => {
        await this.#ask(lane, 'close');
        await lane.thread.terminate();
      }),
    );
  }

  async #ask(lane: Lane, what: 'close' | 'closePack'): Promise<void> {
    await lane.thread.calls
      .call(what)
      .catch((error: unknown) =>
        this.#options.seams.log.warn('target lane did not close cleanly', { what, error: messageOf(error) }),
      );
  }

  /** UNREACHABLE; then no thread is left. */
  async #startLane(laneIndex: number): Promise<Lane> {
    const { laneCount, laneEntry, laneData, timeouts } = this.#options;
    const connections = new Map<string, Connection>();
    const data: TargetLaneData = { laneIndex, laneCount, laneData, ...(timeouts ? { timeouts } : {}) };
    const onExit = (error: Error): void => {
      this.#threads.delete(thread);
      this.#onLaneExit(lane, laneIndex, error);
    };
    const usage = (): Promise<Record<string, number>> => lane.thread.calls.call('usage');
    const tell = (notice: GrantNotice): void => lane.thread.calls.notify('grant', notice);
    const thread = startLaneThread(laneEntry, data, { handlers: this.#handlers(connections, { usage, tell }), onExit });
    this.#threads.add(thread);
    const endpoint = this.#endpoint;
    const at = 'unix' in endpoint ? { unix: `${endpoint.unix}.${laneIndex}` } : endpoint;
    const lane: Lane = { thread, at, connections, given: 0, alive: false };
    try {
      lane.at = await thread.calls.call<Endpoint>('listen', at);
      // Here, too, the first lane finds the port that the others share.
      if (this.#secureEndpoint)
        this.#secureEndpoint = await thread.calls.call<Address>('listenSecurely', this.#secureEndpoint);
    } catch (error) {
      await thread.terminate();
      throw new TidemarkError(
        'UNREACHABLE',
        `target lane ${laneIndex} cannot listen on ${JSON.stringify([at, this.#secureEndpoint])}: ${messageOf(error)}`,
        { at },
        error,
      );
    }
    lane.alive = true;
    return lane;
  }

  #handlers(connections: Map<string, Connection>, lane: ThrottledLane): Handlers {
    const { registrar, restoreSource, rehearse, throttle } = this.#options;
    /** Shares begin and end with what was begun. */
    const begin = async <T>(name: string, begun: Promise<T>, end: () => Promise<void>, of: Share) => {
      const endBoth = (): Promise<void> => {
        throttle?.end(name);
        return end();
      };
      connections.set(name, { begun, end: endBoth });
      const answer = await begun;
      const told = (grant: Grant): void => lane.tell({ connection: name, ...grant });
      const grant = throttle?.begin({ name, ...of, lane, tell: told }) ?? { rateBytesPerSecond: 0, limit: '' };
      return { begun: answer, grant };
    };
    return {
      begin: (name: string, hello: TransferHello, ends: ConnectionEnds) =>
        begin(name, registrar.begin(name, hello), () => registrar.end(name), shareOf(hello, ends)),
      offer: (name: string, firstBlock: number, digests: Uint8Array) => registrar.offer(name, firstBlock, digests),
      beginAudit: (name: string, changedBytes: number) => registrar.beginAudit(name, changedBytes),
      goOnAudit: (name: string, answers: AuditAnswers) => registrar.goOnAudit(name, answers),
      commit: registrar.commit.bind(registrar),
      commitSame: (name: string, window: number, digest: Uint8Array, sums: FinishedWindow['declared']) =>
        registrar.commitSame(name, window, digest, sums),
      commitUntouched: registrar.commitUntouched.bind(registrar),
      beginRestore: (name: string, hello: RestoreHello, ends: ConnectionEnds) =>
        begin(name, restoreSource.begin(name, hello), () => restoreSource.end(name), shareOf(hello, ends)),
      resolve: restoreSource.resolve.bind(restoreSource),
      damaged: restoreSource.damaged.bind(restoreSource),
      end: (name: string) => endConnection(connections, name),
      rehearse: async (restorePointId: RestorePointId, run: RunKey) => rehearse?.(restorePointId, run),
    };
  }

  /** A lane that crashed takes its connections with it: their promises end, their clients come back to its successor. */
  #onLaneExit(lane: Lane, index: number, error: Error): void {
    const { log } = this.#options.seams;
    for (const name of lane.connections.keys())
      endConnection(lane.connections, name).catch((reason: unknown) =>
        log.warn('a connection of a dead lane did not end cleanly', { connection: name, error: messageOf(reason) }),
      );
    if (!lane.alive || this.#closing.signal.aborted) return;
    lane.alive = false;
    log.warn('target lane ended and is replaced', { lane: index, error: error.message });
    const restart = this.#restartLane(index).finally(() => this.#restarts.delete(restart));
    this.#restarts.add(restart);
  }

  /** Until it lives: what kept it from listening may pass. */
  async #restartLane(index: number): Promise<void> {
    const { clock, log } = this.#options.seams;
    const { signal } = this.#closing;
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      await clock.sleep(pauseMs, signal).catch(() => undefined);
      if (signal.aborted) return;
      try {
        this.#lanes[index] = await this.#startLane(index);
        return;
      } catch (error) {
        log.error('target lane cannot be replaced yet', { lane: index, error: messageOf(error) });
      }
    }
  }

  #nextLanePath(): string {
    const lanes = this.#lanes
      .filter((lane) => lane.alive)
      .sort((a, b) => a.connections.size - b.connections.size || a.given - b.given);
    const [lane] = lanes;
    if (!lane || !('unix' in lane.at)) throw new TidemarkError('UNREACHABLE', 'no lane of the target is alive');
    lane.given += 1;
    return lane.at.unix;
  }
}

/** Only after it has begun: else what begins late would never end. */
async function endConnection(connections: Map<string, Connection>, name: string): Promise<void> {
  const connection = connections.get(name);
  if (!connections.delete(name)) return;
  await connection!.begun.catch(() => undefined);
  await connection!.end();
}

function makePrivateFolder(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  chmodSync(folder, 0o700);
}
