/**
 * One child of the supervisor: started, watched, started again with back-off when it dies, ended when asked. Each is
 * the leader of its own process group, so that Ctrl-C in the terminal reaches the supervisor alone, which then ends
 * them in order.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { messageOf } from '../../schema/domain/errors.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import { identityOf } from './process-identity.ts';
import type { ChildState, ChildStatus } from './stack-file.ts';

export type ChildSpec = {
  name: string;
  command: string;
  args: string[];
  /** Added to the supervisor's own environment. */
  environment: Record<string, string>;
  /** `message`: the child sends `{ready: true}` over IPC. `probe`: asked each 50 ms. */
  readiness: { kind: 'message' } | { kind: 'probe'; isReady(): Promise<boolean> };
  /** SIGTERM to SIGKILL, ms. */
  graceMs: number;
};

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5000;
const PROBE_PAUSE_MS = 50;
/** A child that lived this long is taken for healthy: the next pause is the first again. */
const HEALTHY_LIFE_MS = 30_000;

export const nextPauseMs = (previousMs: number, lifeMs: number): number =>
  lifeMs >= HEALTHY_LIFE_MS || previousMs === 0 ? FIRST_PAUSE_MS : Math.min(previousMs * 2, LONGEST_PAUSE_MS);

const wordsOf = (code: number | null, signal: string | null): string =>
  signal === null ? `exit code ${code}` : `signal ${signal}`;

type Running = { process: ChildProcess; gone: Promise<void> };

export class Child {
  #spec: ChildSpec;
  readonly #logFile: string;
  readonly #clock: Clock;
  readonly #onChange: () => void;
  readonly #watchers = new Set<() => void>();
  readonly #status: ChildStatus;
  #wanted = false;
  #pauseMs = 0;
  #startedAtMs = 0;
  #running: Running | null = null;
  #timer: NodeJS.Timeout | undefined;

  /** `onChange` is called synchronously at each change of the status, before anything else happens. */
  constructor(spec: ChildSpec, logFile: string, clock: Clock, onChange: () => void) {
    this.#spec = spec;
    this.#logFile = logFile;
    this.#clock = clock;
    this.#onChange = onChange;
    const noProcess = { pid: null, startTicks: null, restarts: 0, lastExit: null };
    this.#status = { name: spec.name, state: 'stopped', ...noProcess, since: this.#now() };
  }

  get name(): string {
    return this.#spec.name;
  }

  status(): ChildStatus {
    return { ...this.#status };
  }

  /** How it is started from now on. */
  respecify(spec: ChildSpec): void {
    this.#spec = spec;
  }

  /** Ends it as `stop` would; it is started again. */
  restart(): void {
    const ending = this.#running;
    if (!this.#wanted || ending === null) return;
    ending.process.kill('SIGTERM');
    const force = setTimeout(() => ending.process.kill('SIGKILL'), this.#spec.graceMs);
    void ending.gone.then(() => clearTimeout(force));
  }

  /** Starts it, and again whenever it dies, until `stop`. */
  start(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#pauseMs = 0;
    this.#launch();
  }

  /** Resolves when no process of this child is left. It may be started again after. */
  async stop(): Promise<void> {
    this.#wanted = false;
    clearTimeout(this.#timer);
    const ending = this.#running;
    if (ending === null) {
      if (this.#status.state !== 'stopped') this.#enter('stopped');
      return;
    }
    if (this.#status.state !== 'stopping') this.#enter('stopping');
    ending.process.kill('SIGTERM');
    const force = setTimeout(() => ending.process.kill('SIGKILL'), this.#spec.graceMs);
    await ending.gone;
    clearTimeout(force);
  }

  /** Resolves when ready; false when it is stopped or the time runs out first. */
  whenReady(limitMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const finish = (answer: boolean): void => {
        clearTimeout(limit);
        this.#watchers.delete(look);
        resolve(answer);
      };
      const look = (): void => {
        const { state } = this.#status;
        if (state === 'ready') finish(true);
        else if (state === 'stopped' || state === 'stopping') finish(false);
      };
      const limit = setTimeout(() => finish(false), limitMs);
      this.#watchers.add(look);
      look();
    });
  }

  #now(): string {
    return new Date(this.#clock.now()).toISOString();
  }

  #enter(state: ChildState, change: Partial<ChildStatus> = {}): void {
    Object.assign(this.#status, change, { state, since: this.#now() });
    this.#onChange();
    for (const watcher of this.#watchers) watcher();
  }

  #spawn(): ChildProcess {
    const { command, args, environment, readiness } = this.#spec;
    const log = openSync(this.#logFile, 'a', 0o600);
    try {
      this.#writeHead(log);
      const stdio: ('ignore' | 'ipc' | number)[] = ['ignore', log, log];
      if (readiness.kind === 'message') stdio.push('ipc');
      return spawn(command, args, { detached: true, env: { ...process.env, ...environment }, stdio });
    } finally {
      closeSync(log);
    }
  }

  /** A full disk costs this line, not the child. */
  #writeHead(log: number): void {
    try {
      writeSync(log, `---- ${this.#now()} starting ${this.name}\n`);
    } catch {
      // The child's own lines are lost as well; it is told by the state of the disk, not by us.
    }
  }

  #launch(): void {
    this.#startedAtMs = this.#clock.monotonic();
    let started: ChildProcess;
    try {
      started = this.#spawn();
    } catch (error) {
      // No log to be had, no descriptor, no process: worth trying again like any death.
      return this.#onDeath(`cannot be started: ${messageOf(error)}`);
    }
    const identity = started.pid === undefined ? null : identityOf(started.pid);
    const gone = new Promise<void>((resolve) => {
      const end = (lastExit: string): void => {
        resolve();
        this.#onGone(started, lastExit);
      };
      started.once('error', (error) => end(`cannot be started: ${error.message}`));
      started.once('exit', (code, signal) => end(wordsOf(code, signal)));
    });
    this.#running = { process: started, gone };
    this.#enter('starting', { pid: identity?.pid ?? null, startTicks: identity?.startTicks ?? null });
    if (this.#spec.readiness.kind === 'probe') void this.#probe(started, this.#spec.readiness);
    else started.on('message', (message) => this.#onMessage(started, message));
  }

  /** Of a process that was replaced meanwhile, nothing counts any more. */
  #isStarting(which: ChildProcess): boolean {
    return this.#running?.process === which && this.#status.state === 'starting';
  }

  #onMessage(from: ChildProcess, message: unknown): void {
    const isReady = (message as { ready?: unknown } | null)?.ready === true;
    if (isReady && this.#isStarting(from)) this.#enter('ready');
  }

  async #probe(of: ChildProcess, readiness: { isReady(): Promise<boolean> }): Promise<void> {
    while (this.#isStarting(of)) {
      const answer = await readiness.isReady();
      if (answer && this.#isStarting(of)) this.#enter('ready');
      else await this.#clock.sleep(PROBE_PAUSE_MS);
    }
  }

  #onGone(which: ChildProcess, lastExit: string): void {
    if (this.#running?.process !== which) return;
    this.#running = null;
    this.#onDeath(lastExit);
  }

  #onDeath(lastExit: string): void {
    const noProcess = { pid: null, startTicks: null, lastExit };
    if (!this.#wanted) return this.#enter('stopped', noProcess);
    this.#pauseMs = nextPauseMs(this.#pauseMs, this.#clock.monotonic() - this.#startedAtMs);
    this.#timer = setTimeout(() => this.#launch(), this.#pauseMs);
    this.#enter('waiting', { ...noProcess, restarts: this.#status.restarts + 1 });
  }
}
