/** Starts the children in order, keeps them running, follows the configuration, records every change in stack.json. */
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { Clock, Log } from '../../schema/domain/seams.ts';
import { Child, type ChildSpec } from './child.ts';
import {
  configurationDigest,
  type ConfigurationParts,
  configurationParts,
  configuredWorkers,
  watchConfiguration,
} from './configuration-watch.ts';
import { databaseChild, prepareDatabase } from './database.ts';
import type { StackLayout } from './layout.ts';
import { endStorageDaemons } from './leftovers.ts';
import { keepShort } from './log-file.ts';
import type { StackPorts } from './ports.ts';
import { identityOf } from './process-identity.ts';
import { type ChildStatus, type StackConnections, type StackFile, writeStackFile } from './stack-file.ts';
import { temporalChild } from './temporal-server.ts';
import type { StackTools } from './tools.ts';
import { capsOf, overMemory } from './worker-caps.ts';
import { workerChild, type WorkerName, workerNames } from './worker-child.ts';

export type StackOptions = {
  stateFolder: string;
  tools: StackTools;
  /** Absolute paths of the workers' entry files. */
  workers: Record<WorkerName, string>;
  /** Ports asked for; the others are free ones, kept over restarts. */
  ports: Partial<StackPorts>;
  /** Payloads are encrypted: the control worker decodes them for Temporal's UI. */
  hasPayloadCodec: boolean;
  /** Brings the catalog's tables up to date; the database answers when it is called. */
  migrate(database: StackConnections['database']): Promise<void>;
  clock: Clock;
  log: Log;
  /** Each change of a child, for whoever shows it. */
  onChange?(child: ChildStatus): void;
};

export type Stack = {
  readonly layout: StackLayout;
  readonly connections: StackConnections;
  /** Copy of what stack.json says. */
  describe(): StackFile;
  /** False when not all children became ready in time; they are still being restarted. */
  whenReady(limitMs: number): Promise<boolean>;
  /** Ends all children, workers first, and gives the folder free. No process is left. */
  stop(): Promise<void>;
};

const SERVER_LIMIT_MS = 60_000;
const KEEPER_LIMIT_MS = 15_000;
const LOG_LIMIT_BYTES = 64 * 1024 * 1024;
/** Longer than a worker needs to drain, so that it is asked once. */
const MEMORY_PAUSE_MS = 30_000;
const LOG_PAUSE_MS = 60_000;

const isServer = (name: string): boolean => name === 'database' || name === 'temporal';

export class Supervisor implements Stack {
  readonly layout: StackLayout;
  readonly connections: StackConnections;
  readonly #options: StackOptions;
  readonly #ports: StackPorts;
  readonly #unlock: () => void;
  readonly #children = new Map<string, Child>();
  readonly #stopping = new AbortController();
  readonly #head: Pick<StackFile, 'pid' | 'startTicks' | 'startedAt' | 'state' | 'configuration'>;
  #watching: Promise<unknown> = Promise.resolve();
  #workersStarted: Promise<void> = Promise.resolve();
  #stopped: Promise<void> | null = null;
  /** False from the first failure to the next success: told once. */
  #isRecorded = true;

  constructor(
    options: StackOptions,
    layout: StackLayout,
    ports: StackPorts,
    connections: StackConnections,
    unlock: () => void,
  ) {
    this.#options = options;
    this.layout = layout;
    this.#ports = ports;
    this.connections = connections;
    this.#unlock = unlock;
    const startedAt = new Date(options.clock.now()).toISOString();
    const configuration = { digest: null, state: 'applying' } as const;
    this.#head = { ...identityOf(process.pid)!, startedAt, state: 'starting', configuration };
  }

  describe(): StackFile {
    const children = [...this.#children.values()].map((child) => child.status());
    return { ...this.#head, ...this.connections, children };
  }

  /** Returns when servers run and the catalog is current; the workers come up behind it (`whenReady`). */
  async start(): Promise<void> {
    try {
      this.#record();
      await prepareDatabase(this.layout, this.#options.tools);
      await this.#startServers();
      await this.#options.migrate(this.connections.database);
    } catch (error) {
      await this.stop();
      throw error;
    }
    for (const name of workerNames) this.#add(await this.#specOf(name));
    const digest = await configurationDigest(this.layout.machineFile);
    const parts = await configurationParts(this.layout.machineFile);
    this.#workersStarted = this.#startWorkers(workerNames);
    this.#watching = Promise.all([this.#watch(digest, parts), this.#watchLogs(), this.#watchMemory()]);
  }

  async #specOf(name: WorkerName): Promise<ChildSpec> {
    const { tools, workers } = this.#options;
    const caps = await capsOf(this.layout.machineFile, name);
    return workerChild(name, tools.node, workers[name], this.layout, this.connections, caps);
  }

  async whenReady(limitMs: number): Promise<boolean> {
    const { clock } = this.#options;
    const deadline = clock.monotonic() + limitMs;
    await this.#workersStarted;
    const leftMs = Math.max(1, deadline - clock.monotonic());
    const all = await Promise.all([...this.#children.values()].map((child) => child.whenReady(leftMs)));
    return all.every(Boolean);
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stopAll();
    return this.#stopped;
  }

  /** A full disk must not end the supervisor: the children need it more than the record. The next change tries again. */
  #record(): void {
    try {
      writeStackFile(this.layout.stackFile, this.describe());
      this.#isRecorded = true;
    } catch (error) {
      if (!this.#isRecorded) return;
      this.#isRecorded = false;
      const fields = { file: this.layout.stackFile, error: messageOf(error) };
      this.#options.log.error('cannot record what runs; a killed stack would not be found by it', fields);
    }
  }

  #add(spec: ChildSpec): Child {
    const child: Child = new Child(spec, this.layout.logFile(spec.name), this.#options.clock, () => {
      if (this.#head.state === 'starting' && this.#isAllReady()) this.#head.state = 'running';
      this.#record();
      this.#options.onChange?.(child.status());
    });
    this.#children.set(spec.name, child);
    return child;
  }

  #isAllReady(): boolean {
    const states = [...this.#children.values()].map((child) => child.status().state);
    return states.length === workerNames.length + 2 && states.every((state) => state === 'ready');
  }

  #named(names: readonly string[]): Child[] {
    return names.map((name) => this.#children.get(name)!);
  }

  async #startServers(): Promise<void> {
    const { tools } = this.#options;
    const specs = [
      databaseChild(this.layout, tools),
      temporalChild(this.layout, tools, this.#ports, this.connections.temporal.codecUrl),
    ];
    const servers = specs.map((spec) => this.#add(spec));
    for (const server of servers) server.start();
    for (const server of servers) {
      if (await server.whenReady(SERVER_LIMIT_MS)) continue;
      const { lastExit } = server.status();
      const logFile = this.layout.logFile(server.name);
      const message = `${server.name} did not come up (${lastExit ?? 'no answer'}); its log is ${logFile}`;
      throw new TidemarkError('UNREACHABLE', message, { child: server.name, lastExit, logFile });
    }
  }

  /** The keeper first: hosts reach their monitors through it. One that hangs does not keep the others from starting. */
  async #startWorkers(names: readonly WorkerName[]): Promise<void> {
    const keeper = names.includes('keeper') ? this.#children.get('keeper')! : null;
    keeper?.start();
    await keeper?.whenReady(KEEPER_LIMIT_MS);
    if (this.#stopping.signal.aborted) return;
    for (const child of this.#named(names)) if (child !== keeper) child.start();
  }

  async #watch(digest: string | null, parts: ConfigurationParts): Promise<void> {
    await this.#workersStarted;
    const { signal } = this.#stopping;
    if (signal.aborted) return;
    this.#head.configuration = { digest, state: 'applied' };
    this.#record();
    const { clock, log } = this.#options;
    let applied = parts;
    const apply = async (changed: string | null): Promise<void> => {
      const wanted = await configurationParts(this.layout.machineFile);
      await this.#applyConfiguration(
        changed,
        configuredWorkers.filter((name) => wanted[name] !== applied[name]),
      );
      applied = wanted;
    };
    const onTrouble = (error: unknown): void =>
      log.error('the configuration of this machine cannot be followed', { error: messageOf(error) });
    await watchConfiguration(this.layout.machineFile, digest, clock, signal, onTrouble, apply);
  }

  async #watchLogs(): Promise<void> {
    const { clock, log } = this.#options;
    const files = ['stack', ...this.#children.keys()].map((name) => this.layout.logFile(name));
    while (!this.#stopping.signal.aborted) {
      for (const file of files)
        await keepShort(file, LOG_LIMIT_BYTES).catch((error: unknown) =>
          log.warn('cannot cut a log', { file, error: messageOf(error) }),
        );
      await clock.sleep(LOG_PAUSE_MS, this.#stopping.signal).catch(() => undefined);
    }
  }

  /** A worker over its bound drains and is started anew: what it had in work goes on where it was. */
  async #watchMemory(): Promise<void> {
    const { clock, log } = this.#options;
    while (!this.#stopping.signal.aborted) {
      const running = workerNames.map((name) => ({ ...this.#children.get(name)!.status(), name }));
      for (const { name, ...memory } of await overMemory(this.layout.machineFile, running)) {
        log.warn('a worker takes more memory than it may and is started anew', { worker: name, ...memory });
        this.#children.get(name)!.restart();
      }
      await clock.sleep(MEMORY_PAUSE_MS, this.#stopping.signal).catch(() => undefined);
    }
  }

  async #applyConfiguration(digest: string | null, workers: readonly WorkerName[]): Promise<void> {
    this.#options.log.info('the configuration of this machine changed; restarting what reads it', { workers });
    this.#head.configuration = { digest, state: 'applying' };
    this.#record();
    const children = this.#named(workers);
    await Promise.all(children.map((child) => child.stop()));
    for (const name of workers) this.#children.get(name)!.respecify(await this.#specOf(name));
    if (this.#stopping.signal.aborted) return;
    await this.#startWorkers(workers);
    await Promise.all(children.map((child) => child.whenReady(SERVER_LIMIT_MS)));
    this.#head.configuration = { digest, state: 'applied' };
    this.#record();
  }

  async #stopAll(): Promise<void> {
    this.#head.state = 'stopping';
    this.#stopping.abort();
    const all = [...this.#children.values()];
    const workers = all.filter((child) => !isServer(child.name) && child.name !== 'keeper');
    await Promise.all(workers.map((child) => child.stop()));
    // The keeper outlives the workers: it thaws what they leave.
    await this.#children.get('keeper')?.stop();
    await this.#watching;
    await endStorageDaemons(this.layout.folder);
    await Promise.all(all.filter((child) => isServer(child.name)).map((child) => child.stop()));
    this.#record();
    this.#unlock();
  }
}
