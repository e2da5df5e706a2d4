/**
 * Says what a workflow waits for when a machine does not answer. Verbs on machines that nobody can stand in for are
 * noted while they are out; one timer looks at them, ever more rarely, so that a long wait writes little history.
 */
import { CancellationScope, sleep } from '@temporalio/workflow';
import { controlQueue } from '../schema/domain/queues.ts';
import type { Activities } from '../activities/contract.ts';
import { type At, say } from './say.ts';

/** `name`: for people, e.g. "host h1". */
export type Machine = { name: string; queue: string };
type Out = { machine: Machine; sinceMs: number };

const FIRST_LOOK_MS = 15_000;
const LONGEST_PAUSE_MS = 10 * 60_000;
/** A worker polls at least each minute; less is no silence. */
const SILENT_MS = 65_000;

export class WatchedMachines {
  readonly #out = new Set<Out>();
  readonly #machineWaitMs: number;
  readonly #tell: (waitsFor: string | null) => void;

  /** `tell`: what is waited for, in words; null when nothing is any more. */
  constructor(machineWaitMs: number, tell: (waitsFor: string | null) => void) {
    this.#machineWaitMs = machineWaitMs;
    this.#tell = tell;
  }

  /** The activity on that machine's queue, noted while it is out. */
  on<Name extends keyof Activities>(machine: Machine, name: Name, summary?: string): Activities[Name] {
    const at: At = { queue: machine.queue, machineWaitMs: this.#machineWaitMs, ...(summary ? { summary } : {}) };
    const verb = say(name, at) as (input: never) => Promise<unknown>;
    const noted = async (input: never): Promise<unknown> => {
      const out = { machine, sinceMs: Date.now() };
      this.#out.add(out);
      try {
        return await verb(input);
      } finally {
        this.#out.delete(out);
      }
    };
    return noted as Activities[Name];
  }

  /** Runs `work` under the watch. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    const scope = new CancellationScope();
    const watch = scope.run(() => this.#watch()).catch(() => undefined);
    try {
      return await work();
    } finally {
      scope.cancel();
      await watch;
      this.#tell(null);
    }
  }

  async #watch(): Promise<void> {
    let pauseMs = FIRST_LOOK_MS;
    for (;;) {
      await sleep(pauseMs);
      const [late] = [...this.#out].filter((out) => Date.now() - out.sinceMs >= FIRST_LOOK_MS - 1000);
      this.#tell(late ? await describeWait(late) : null);
      pauseMs = late ? Math.min(pauseMs * 2, LONGEST_PAUSE_MS) : FIRST_LOOK_MS;
    }
  }
}

async function describeWait({ machine, sinceMs }: Out): Promise<string> {
  const since = new Date(sinceMs).toISOString();
  const { silentMs } = await say('probeQueue', { queue: controlQueue, summary: machine.name })({
    queue: machine.queue,
  });
  if (silentMs === null) return `waits for ${machine.name} since ${since}: no worker of it is known`;
  if (silentMs < SILENT_MS) return `waits for ${machine.name} since ${since}: it is there, and busy`;
  return `waits for ${machine.name}, silent since ${new Date(Date.now() - silentMs).toISOString()}`;
}
