/** A target lane: one thread that accepts connections, writes blocks to its own open pack, and asks the registrar. */
import { chmodSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { windowCountOf } from '../../../schema/domain/extents.ts';
import type { Endpoint } from '../../../schema/domain/hypervisor.ts';
import type {
  RecordSink,
  RecordSource,
  RestoreSource,
  Seams,
  TransferCursor,
  TransferRegistrar,
} from '../../../schema/domain/seams.ts';
import { refuse } from '../../../schema/wire/frame.ts';
import { type Hello, type Message, PROTOCOL_VERSION, type Welcome } from '../../../schema/wire/messages.ts';
import { openPortCalls, type Port, type PortCalls } from '../port-calls.ts';
import type { Grant } from '../throttle/grants.ts';
import { Wire } from '../wire-session/wire.ts';
import { BackupSession } from './backup-session.ts';
import { RestoreSession } from './restore-session.ts';
import { LaneWork } from './work-clock.ts';

const HELLO_TIMEOUT_MS = 10_000;
/** Payload bytes a connection may have on their way. */
const CREDIT_BYTES = 16 * 1024 * 1024;
const MAX_CONNECTIONS = 256;

/** `workerData` of a target lane's thread; `laneData` is what the composition root gave. */
export type TargetLaneData = { laneIndex: number; laneCount: number; timeouts?: WireTimeouts; laneData: unknown };
export type WireTimeouts = { helloMs: number; frameMs: number };
export type TargetLaneOptions = {
  port: Port;
  data: TargetLaneData;
  sink: RecordSink;
  records: RecordSource;
  seams: Seams;
};
type Session = {
  receive(message: Message, payload: Buffer): void;
  stop(error: Error): void;
  setGrant(grant: Grant): void;
  readonly usedBytes: number;
};
type Opened = { session: Session | null; welcome: Welcome; grant: Grant };
type Begun<T> = { begun: T; grant: Grant };
type RestoredDisk = Awaited<ReturnType<RestoreSource['begin']>>;
export type GrantNotice = Grant & { connection: string };

/** A client that says nothing is told to come again: it may have been stopped, or we. */
export function armHello(wire: Wire, timeouts: WireTimeouts | undefined): NodeJS.Timeout {
  const late = new TidemarkError('UNREACHABLE', 'no HELLO came in time');
  return setTimeout(() => wire.fail(late), timeouts?.helloMs ?? HELLO_TIMEOUT_MS);
}

/** Serves until the thread's owner calls `close`. */
export function runTargetLane(options: TargetLaneOptions): void {
  const lane = new TargetLane(options);
  lane.serve();
}

class TargetLane {
  readonly #options: TargetLaneOptions;
  readonly #wires = new Set<Wire>();
  readonly #work = new LaneWork();
  readonly #sessions = new Map<string, Session>();
  #calls!: PortCalls;
  #server: Server | null = null;
  #count = 0;
  /** A lane that took the place of another must not take up its connections' names. */
  readonly #life: string;

  constructor(options: TargetLaneOptions) {
    this.#options = options;
    this.#life = Buffer.from(options.seams.random.bytes(6)).toString('hex');
  }

  serve(): void {
    const usage = () => Object.fromEntries([...this.#sessions].map(([name, { usedBytes }]) => [name, usedBytes]));
    const handlers = {
      usage,
      listen: (at: Endpoint) => this.#listen(at),
      closePack: () => this.#closePack(),
      close: () => this.#close(),
    };
    this.#calls = openPortCalls(this.#options.port, handlers, (name, value) => {
      const { connection, ...grant } = value as GrantNotice;
      if (name === 'grant') this.#sessions.get(connection)?.setGrant(grant);
    });
  }

  /** The address bound: with port 0 the one the system chose. */
  async #listen(at: Endpoint): Promise<Endpoint> {
    const server = createServer((socket) => this.#accept(socket));
    server.maxConnections = MAX_CONNECTIONS;
    this.#server = server;
    if ('unix' in at) rmSync(at.unix, { force: true });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      if ('unix' in at) server.listen(at.unix, resolve);
      // All lanes share one port; the system spreads the connections.
      else server.listen({ host: at.host, port: at.port, reusePort: true }, resolve);
    });
    if (!('unix' in at)) return { host: at.host, port: (server.address() as { port: number }).port };
    chmodSync(at.unix, 0o600);
    return at;
  }

  /** Connections go on, in a new one. */
  #closePack(): Promise<void> {
    return this.#orLost(() => this.#options.sink.close());
  }

  async #close(): Promise<void> {
    const closed = new Promise((resolve) => (this.#server ? this.#server.close(resolve) : resolve(null)));
    for (const wire of this.#wires)
      wire.fail(new TidemarkError('HOST_DRAINING', 'the repository worker is shutting down'));
    await closed;
    await this.#options.sink.close();
    await this.#options.records.close();
  }

  #accept(socket: Socket): void {
    const { data } = this.#options;
    const connection = `${data.laneIndex}-${(this.#count += 1)}-${this.#life}`;
    let session: Session | null = null;
    let greeted = false;
    const wire = new Wire({
      socket,
      what: `connection ${connection}`,
      ...(data.timeouts ? { frameTimeoutMs: data.timeouts.frameMs } : {}),
      onMessage: (message, payload) => {
        if (message.type === 'bye') return wire.close();
        if (message.type === 'error') return wire.destroy(new TidemarkError(message.code, message.message));
        const own = session;
        if (own) return this.#work.compute(() => own.receive(message, payload));
        if (greeted) throw refuse('type', message.type, 'nothing before WELCOME');
        greeted = true;
        clearTimeout(timer);
        void this.#greet(connection, wire, message).then((made) => {
          session = made;
        });
      },
      onEnd: (error) => {
        clearTimeout(timer);
        this.#wires.delete(wire);
        this.#sessions.delete(connection);
        session?.stop(error ?? new TidemarkError('UNREACHABLE', 'the client left'));
        if (greeted) void this.#calls.call('end', connection).catch(() => undefined);
        if (error) this.#options.seams.log.info('mover connection ended', { connection, error: error.message });
      },
    });
    this.#wires.add(wire);
    const timer = armHello(wire, data.timeouts);
  }

  async #greet(connection: string, wire: Wire, message: Message): Promise<Session | null> {
    try {
      if (message.type !== 'hello') throw refuse('type', message.type, 'HELLO');
      if (message.lowestVersion > PROTOCOL_VERSION)
        throw refuse('HELLO lowest version', message.lowestVersion, `${PROTOCOL_VERSION} or lower`);
      const { session, welcome, grant } = await this.#open(connection, wire, message);
      // Nothing the client sends now can arrive before the session is set: both happen in this turn.
      wire.send(welcome);
      if (session && !wire.ended) this.#sessions.set(connection, session);
      if (grant.rateBytesPerSecond > 0) session?.setGrant(grant);
      return session;
    } catch (error) {
      wire.fail(error);
      return null;
    }
  }

  async #open(connection: string, wire: Wire, hello: Hello): Promise<Opened> {
    if (hello.purpose === 'backup') return this.#openBackup(connection, wire, hello);
    if (hello.purpose === 'restore') return this.#openRestore(connection, wire, hello);
    await this.#calls.call('rehearse', hello.restorePointId, hello.run);
    return { session: null, welcome: this.#welcome({}), grant: { rateBytesPerSecond: 0, limit: '' } };
  }

  async #openBackup(connection: string, wire: Wire, hello: Hello): Promise<Opened> {
    const { restorePointId, run, diskKey, fence, sizeBytes, blockSize } = hello;
    const transfer = { purpose: 'backup' as const, restorePointId, run, diskKey, fence, sizeBytes, blockSize };
    const { begun, grant } = await this.#calls.call<Begun<TransferCursor>>('begin', connection, transfer, wire.ends);
    const { lowWater, above, windowCount } = begun;
    const { seams } = this.#options;
    const own = { registrar: this.#registrar(), sink: this.#sink(wire), work: this.#work };
    const session = new BackupSession({ connection, hello: transfer, wire, seams, ...own });
    const welcome = this.#welcome({ creditBytes: CREDIT_BYTES, sizeBytes, blockSize, windowCount, lowWater, above });
    return { session, welcome, grant };
  }

  async #openRestore(connection: string, wire: Wire, hello: Hello): Promise<Opened> {
    const { restorePointId, diskKey, creditBytes } = hello;
    const source = this.#restoreSource();
    const begin = { purpose: 'restore' as const, restorePointId, diskKey };
    const { begun: disk, grant } = await this.#calls.call<Begun<RestoredDisk>>(
      'beginRestore',
      connection,
      begin,
      wire.ends,
    );
    const { records } = this.#options;
    const session = new RestoreSession({ connection, wire, source, records, disk, creditBytes });
    return { session, welcome: this.#welcome({ ...disk, windowCount: windowCountOf(disk.sizeBytes) }), grant };
  }

  #welcome(of: Partial<Welcome>): Welcome {
    const none = { creditBytes: 0, sizeBytes: 0, blockSize: 0, windowCount: 0, lowWater: 0, above: [] };
    return { type: 'welcome', version: PROTOCOL_VERSION, laneCount: this.#options.data.laneCount, ...none, ...of };
  }

  #sink(own: Wire): RecordSink {
    const { sink } = this.#options;
    return {
      append: (record) => sink.append(record),
      sync: () => this.#orLost(() => sink.sync(), own),
      close: () => this.#closePack(),
    };
  }

  /**
   * When a sync fails, whatever any connection appended before is lost: in the same turn all of them end, `own` with the
   * cause, and begin anew from their cursors.
   */
  async #orLost(work: () => Promise<void>, own?: Wire): Promise<void> {
    try {
      await work();
    } catch (error) {
      own?.fail(error);
      const lost = new TidemarkError('TRANSFER_FAILED', 'the lane lost blocks that were not durable yet', {}, error);
      for (const wire of this.#wires) wire.fail(lost);
      throw error;
    }
  }

  #registrar(): TransferRegistrar {
    const calls = this.#calls;
    return {
      begin: (...args) => calls.call('begin', ...args),
      offer: (...args) => calls.call('offer', ...args),
      commit: (...args) => calls.call('commit', ...args),
      commitUntouched: (...args) => calls.call('commitUntouched', ...args),
      end: (...args) => calls.call('end', ...args),
    };
  }

  #restoreSource(): RestoreSource {
    const calls = this.#calls;
    return {
      begin: (...args) => calls.call('beginRestore', ...args),
      resolve: (...args) => calls.call('resolve', ...args),
      damaged: (...args) => calls.call('damaged', ...args),
      end: (...args) => calls.call('end', ...args),
    };
  }
}
