/** A target lane: one thread that accepts connections, writes blocks to its own open pack, and asks the registrar. */
import { chmodSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { windowCountOf } from '../../../schema/domain/extents.ts';
import type { Endpoint } from '../../../schema/domain/hypervisor.ts';
import { releaseFreeMemory } from '../../../schema/domain/memory.ts';
import type { Peer } from '../../../schema/domain/security.ts';
import type {
  BegunTransfer,
  RecordSink,
  RecordSource,
  RestoreSource,
  Seams,
  TransferRegistrar,
} from '../../../schema/domain/seams.ts';
import { refuse } from '../../../schema/wire/frame.ts';
import { chooseVersion, type Hello, type Message, type Welcome } from '../../../schema/wire/messages.ts';
import { openPortCalls, type Port, type PortCalls } from '../port-calls.ts';
import type { Grant } from '../throttle/grants.ts';
import type { ServerEnd } from '../wire-session/secure-ends.ts';
import { FRAME_TIMEOUT_MS, Wire } from '../wire-session/wire.ts';
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
  /** For clients on other machines; without it nothing listens to them. */
  secure?: ServerEnd | undefined;
  /** Hears what the target's owner tells (`MoverTarget.tell`). */
  onTold?: (news: unknown) => void;
};
type Session = {
  receive(message: Message, payload: Buffer): void;
  stop(error: Error): void;
  setGrant(grant: Grant): void;
  readonly usedBytes: number;
};
/** But for the version, which is chosen already. */
type Greeting = Omit<Welcome, 'version'>;
type Opened = { session: Session | null; welcome: Greeting; grant: Grant };
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
  /** With who is at the other end; null: somebody on this machine who may use the socket. */
  readonly #wires = new Map<Wire, Peer | null>();
  readonly #work = new LaneWork();
  readonly #sessions = new Map<string, Session>();
  #calls!: PortCalls;
  readonly #servers: Server[] = [];
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
      listen: (at: Endpoint) => this.#listen(at, createServer(this.#accept.bind(this, null))),
      listenSecurely: (at: Endpoint) => this.#listen(at, this.#createSecureServer()),
      closePack: () => this.#closePack(),
      tell: (news: unknown) => this.#options.onTold?.(news),
      close: () => this.#close(),
    };
    this.#calls = openPortCalls(this.#options.port, handlers, (name, value) => {
      const { connection, ...grant } = value as GrantNotice;
      if (name === 'grant') this.#sessions.get(connection)?.setGrant(grant);
    });
  }

  /** The address bound: with port 0 the one the system chose. */
  async #listen(at: Endpoint, server: Server): Promise<Endpoint> {
    server.maxConnections = MAX_CONNECTIONS;
    this.#servers.push(server);
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

  #createSecureServer(): Server {
    const { secure, seams } = this.#options;
    if (!secure) throw new TidemarkError('BUG', 'this lane was given no certificates to listen with');
    secure.onChange(() => this.#endRevoked(secure));
    return secure.createServer({
      onPeer: (socket, peer) => this.#accept(peer, socket),
      onRefused: (socket, why, from) => {
        seams.log.warn('a client was refused', { from, error: why.message, ...why.details });
        new Wire({ socket, what: `client ${from}`, onMessage: () => undefined, onEnd: () => undefined }).fail(why);
      },
      onBroken: (why, from) => seams.log.warn('a client did not come to a secure connection', { from, error: why }),
    });
  }

  #endRevoked(secure: ServerEnd): void {
    for (const [wire, peer] of this.#wires) {
      if (peer === null || !secure.isRevoked(peer)) continue;
      const { machineId, serial } = peer;
      wire.fail(new TidemarkError('PEER_REFUSED', `the certificate of machine ${machineId} was revoked`, { serial }));
    }
  }

  /** Connections go on, in a new one. */
  #closePack(): Promise<void> {
    return this.#orLost(() => this.#options.sink.close());
  }

  async #close(): Promise<void> {
    const closed = Promise.all(this.#servers.map((server) => new Promise((resolve) => server.close(resolve))));
    for (const wire of this.#wires.keys())
      wire.fail(new TidemarkError('HOST_DRAINING', 'the repository worker is shutting down'));
    await closed;
    await this.#options.sink.close();
    await this.#options.records.close();
  }

  #accept(peer: Peer | null, socket: Socket): void {
    const { data } = this.#options;
    const whose = peer === null ? {} : { machine: peer.machineId };
    const connection = `${data.laneIndex}-${(this.#count += 1)}-${this.#life}`;
    let session: Session | null = null;
    let greeted = false;
    const wire = new Wire({
      socket,
      what: `connection ${connection}${peer === null ? '' : ` of machine ${peer.machineId}`}`,
      stallMs: data.timeouts?.frameMs ?? FRAME_TIMEOUT_MS,
      ...(data.timeouts ? { frameTimeoutMs: data.timeouts.frameMs } : {}),
      onMessage: (message, payload) => {
        if (message.type === 'bye') return wire.close();
        if (message.type === 'error') return wire.destroy(new TidemarkError(message.code, message.message));
        const own = session;
        if (own) return this.#work.compute(() => own.receive(message, payload));
        if (greeted) throw refuse('type', message.type, 'nothing before WELCOME');
        greeted = true;
        clearTimeout(timer);
        void this.#greet(connection, wire, message, peer).then((made) => {
          session = made;
        });
      },
      onEnd: (error) => {
        clearTimeout(timer);
        this.#wires.delete(wire);
        this.#sessions.delete(connection);
        if (this.#sessions.size === 0) releaseFreeMemory();
        session?.stop(error ?? new TidemarkError('UNREACHABLE', 'the client left'));
        if (greeted) void this.#calls.call('end', connection).catch(() => undefined);
        // What a machine was refused is for the operator to know.
        const level = error instanceof TidemarkError && error.code === 'PEER_REFUSED' ? 'warn' : 'info';
        if (error)
          this.#options.seams.log[level]('mover connection ended', { connection, ...whose, error: error.message });
      },
    });
    this.#wires.set(wire, peer);
    const timer = armHello(wire, data.timeouts);
  }

  async #greet(connection: string, wire: Wire, message: Message, peer: Peer | null): Promise<Session | null> {
    try {
      if (message.type !== 'hello') throw refuse('type', message.type, 'HELLO');
      const version = chooseVersion(message);
      if (peer !== null) this.#options.secure!.authorize(peer, message);
      const { session, welcome, grant } = await this.#open(connection, wire, message);
      // Nothing the client sends now can arrive before the session is set: both happen in this turn.
      wire.send({ ...welcome, version });
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
    const { begun, grant } = await this.#calls.call<Begun<BegunTransfer>>('begin', connection, transfer, wire.ends);
    const { seams } = this.#options;
    const { auditDue } = begun;
    const own = { registrar: this.#registrar(), sink: this.#sink(wire), work: this.#work };
    const session = new BackupSession({ connection, hello: transfer, auditDue, wire, seams, ...own });
    const welcome = this.#welcome({ creditBytes: CREDIT_BYTES, sizeBytes, blockSize, ...begun });
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
    const own = { records: this.#options.records, work: this.#work };
    const session = new RestoreSession({ connection, wire, source, disk, creditBytes, ...own });
    return { session, welcome: this.#welcome({ ...disk, windowCount: windowCountOf(disk.sizeBytes) }), grant };
  }

  #welcome(of: Partial<Welcome>): Greeting {
    const none = {
      creditBytes: 0,
      sizeBytes: 0,
      blockSize: 0,
      windowCount: 0,
      lowWater: 0,
      auditDue: false,
      above: [],
    };
    return { type: 'welcome', laneCount: this.#options.data.laneCount, ...none, ...of };
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
      for (const wire of this.#wires.keys()) wire.fail(lost);
      throw error;
    }
  }

  #registrar(): TransferRegistrar {
    const calls = this.#calls;
    return {
      begin: (...args) => calls.call('begin', ...args),
      beginAudit: (...args) => calls.call('beginAudit', ...args),
      goOnAudit: (...args) => calls.call('goOnAudit', ...args),
      offer: (...args) => calls.call('offer', ...args),
      commit: (...args) => calls.call('commit', ...args),
      commitSame: (...args) => calls.call('commitSame', ...args),
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
