/**
 * The target's main thread: one address, lane threads behind it, the registrar beside it.
 *
 * How connections reach lanes. Node can hand neither a socket nor a duplicated descriptor to a worker thread, and two threads that
 * own one descriptor number close each other's files. So each lane listens itself: over TCP all on the same port (SO_REUSEPORT);
 * on a Unix socket the main thread owns the configured path, answers HELLO with GO_TO, and names the lane with the fewest connections given.
 */
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import path from 'node:path';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { Endpoint } from '../../../schema/domain/hypervisor.ts';
import type { RestorePointId, RunKey } from '../../../schema/domain/ids.ts';
import type {
  RestoreHello,
  RestoreSource,
  Seams,
  TransferHello,
  TransferRegistrar,
} from '../../../schema/domain/seams.ts';
import { refuse } from '../../../schema/wire/frame.ts';
import { type LaneThread, startLaneThread } from '../lane-thread.ts';
import { type Handlers } from '../port-calls.ts';
import { Wire } from '../wire-session/wire.ts';
import { HELLO_TIMEOUT_MS, type TargetLaneData, type WireTimeouts } from './lane.ts';

export type MoverTargetOptions = {
  /** A Unix socket (its folder becomes 0700, the sockets 0600), or host and port; port 0: the system chooses. */
  listen: Endpoint;
  laneCount: number;
  /** Thread entry that calls `runTargetLane`. */
  laneEntry: URL;
  /** Plain data for it, e.g. the repository's folder. */
  laneData: unknown;
  registrar: TransferRegistrar;
  restoreSource: RestoreSource;
  /** Throws when no open restore point of this run is known; default: every rehearsal is welcome. */
  rehearse?: (restorePointId: RestorePointId, run: RunKey) => Promise<void> | void;
  timeouts?: WireTimeouts;
  seams: Seams;
};

export type MoverTarget = {
  /** Where clients connect; with port 0 the port bound. */
  readonly endpoint: Endpoint;
  /** Says HOST_DRAINING to every client, closes packs, ends the threads. */
  close(): Promise<void>;
};

type Lane = { thread: LaneThread; at: Endpoint; connections: Set<string>; given: number; alive: boolean };

/** UNREACHABLE: the address cannot be listened on. */
export async function startMoverTarget(options: MoverTargetOptions): Promise<MoverTarget> {
  const target = new Target(options);
  await target.start();
  return target;
}

class Target implements MoverTarget {
  readonly #options: MoverTargetOptions;
  readonly #lanes: Lane[] = [];
  #endpoint: Endpoint;
  #door: Server | null = null;
  #closed = false;

  constructor(options: MoverTargetOptions) {
    this.#options = options;
    this.#endpoint = options.listen;
  }

  get endpoint(): Endpoint {
    return this.#endpoint;
  }

  async start(): Promise<void> {
    const { listen, laneCount } = this.#options;
    if ('unix' in listen) makePrivateFolder(path.dirname(listen.unix));
    try {
      for (let index = 0; index < laneCount; index += 1) {
        this.#lanes[index] = await this.#startLane(index);
        // The first lane finds the port that the others share.
        if (!('unix' in listen)) this.#endpoint = this.#lanes[0]!.at;
      }
      if ('unix' in listen) this.#door = await openDoor(listen.unix, () => this.#nextLanePath());
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    const door = this.#door;
    if (door) await new Promise((resolve) => door.close(resolve));
    await Promise.all(
      this.#lanes.map(async (lane) => {
        await lane.thread.calls
          .call('close')
          .catch((error: unknown) =>
            this.#options.seams.log.warn('target lane did not close cleanly', { error: String(error) }),
          );
        await lane.thread.terminate();
      }),
    );
  }

  async #startLane(laneIndex: number): Promise<Lane> {
    const { laneCount, laneEntry, laneData, timeouts } = this.#options;
    const connections = new Set<string>();
    const data: TargetLaneData = { laneIndex, laneCount, laneData, ...(timeouts ? { timeouts } : {}) };
    const lane: Partial<Lane> = { connections, given: 0, alive: true };
    const onExit = (error: Error): void => this.#replace(laneIndex, lane as Lane, error);
    lane.thread = startLaneThread(laneEntry, data, { handlers: this.#handlers(connections), onExit });
    const endpoint = this.#endpoint;
    const at = 'unix' in endpoint ? { unix: `${endpoint.unix}.${laneIndex}` } : endpoint;
    try {
      lane.at = await lane.thread.calls.call<Endpoint>('listen', at);
    } catch (error) {
      throw new TidemarkError(
        'UNREACHABLE',
        `target lane ${laneIndex} cannot listen on ${JSON.stringify(at)}: ${(error as Error).message}`,
        { at },
        error,
      );
    }
    return lane as Lane;
  }

  #handlers(connections: Set<string>): Handlers {
    const { registrar, restoreSource, rehearse } = this.#options;
    const restores = new Set<string>();
    return {
      begin: (connection: string, hello: TransferHello) => {
        connections.add(connection);
        return registrar.begin(connection, hello);
      },
      offer: (connection: string, firstBlock: number, digests: Uint8Array) =>
        registrar.offer(connection, firstBlock, digests),
      commit: registrar.commit.bind(registrar),
      commitUntouched: registrar.commitUntouched.bind(registrar),
      beginRestore: (connection: string, hello: RestoreHello) => {
        restores.add(connection);
        connections.add(connection);
        return restoreSource.begin(connection, hello);
      },
      resolve: restoreSource.resolve.bind(restoreSource),
      end: async (connection: string) => {
        if (!connections.delete(connection)) return;
        await (restores.delete(connection) ? restoreSource : registrar).end(connection);
      },
      rehearse: async (restorePointId: RestorePointId, run: RunKey) => rehearse?.(restorePointId, run),
    };
  }

  /** A lane that crashed takes its connections with it: their promises end, their clients come back to its successor. */
  #replace(index: number, lane: Lane, error: Error): void {
    lane.alive = false;
    const { registrar, restoreSource, seams } = this.#options;
    for (const connection of lane.connections)
      void Promise.allSettled([registrar.end(connection), restoreSource.end(connection)]);
    if (this.#closed) return;
    seams.log.warn('target lane ended and is replaced', { lane: index, error: error.message });
    const again = async (): Promise<void> => {
      if (!this.#closed) this.#lanes[index] = await this.#startLane(index);
    };
    setTimeout(
      () =>
        void again().catch((reason: unknown) =>
          seams.log.error('target lane cannot be replaced', { lane: index, error: String(reason) }),
        ),
      100,
    );
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

function makePrivateFolder(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  chmodSync(folder, 0o700);
}

/** The one configured path: it reads HELLO and sends the client on. A socket file left by a dead process is removed. */
async function openDoor(socketPath: string, nextPath: () => string): Promise<Server> {
  rmSync(socketPath, { force: true });
  const door = createServer((socket) => {
    const wire = new Wire({
      socket,
      what: 'client at the door',
      onMessage: (message) => {
        if (message.type !== 'hello') throw refuse('type', message.type, 'HELLO');
        clearTimeout(timer);
        wire.send({ type: 'goTo', path: nextPath() });
        wire.close();
      },
      onEnd: () => clearTimeout(timer),
    });
    const late = new TidemarkError('PROTOCOL_ERROR', 'no HELLO came in time', { field: 'HELLO' });
    const timer = setTimeout(() => wire.fail(late), HELLO_TIMEOUT_MS);
  });
  await new Promise<void>((resolve, reject) => {
    door.once('error', (error) =>
      reject(
        new TidemarkError('UNREACHABLE', `cannot listen on ${socketPath}: ${error.message}`, { socketPath }, error),
      ),
    );
    door.listen(socketPath, resolve);
  });
  chmodSync(socketPath, 0o600);
  return door;
}
