/**
 * Says what a workflow waits for when a machine does not answer. Verbs on machines that nobody can stand in for are
 * noted while they are out; one timer looks at them, ever more rarely, and only while some are out, so that a long wait
 * writes little history and a long transfer none.
 */
import { CancellationScope, condition } from '@temporalio/workflow';
import type { Activities } from '../activities/contract.ts';
import { silenceOf, waitText } from './machine-silence.ts';
import { type At, say } from './say.ts';

/** `looks`: how often it was found still out. */
type Out = { queue: string; sinceMs: number; looks: number };
type Verb = (...input: unknown[]) => Promise<unknown>;

const FIRST_LOOK_MS = 10_000;
const LONGEST_PAUSE_MS = 10 * 60_000;

export class WatchedMachines {
  readonly #out = new Set<Out>();
  readonly #machineWaitMs: number;
  readonly #tell: (waitsFor: string | null) => void;
  #told: Out | null = null;
  #isWatching = false;

  /** `tell`: what is waited for, in words; null when nothing is any more. */
  constructor(machineWaitMs: number, tell: (waitsFor: string | null) => void) {
    this.#machineWaitMs = machineWaitMs;
    this.#tell = tell;
  }

  /** The activity on that queue, noted while it is out. */
  on<Name extends keyof Activities>(queue: string, name: Name, summary?: string): Activities[Name] {
    const at: At = { queue, machineWaitMs: this.#machineWaitMs, ...(summary ? { summary } : {}) };
    const verb = say(name, at) as Verb;
    const noted: Verb = async (...input) => {
      const out = { queue, sinceMs: Date.now(), looks: 0 };
      this.#out.add(out);
      this.#watch();
      try {
        return await verb(...input);
      } finally {
        this.#out.delete(out);
        if (this.#told === out) this.#say(null, null);
      }
    };
    return noted as Activities[Name];
  }

  #watch(): void {
    if (this.#isWatching) return;
    this.#isWatching = true;
    // Clean-up after a cancellation waits for machines, too.
    void CancellationScope.nonCancellable(() => this.#lookAgainAndAgain());
  }

  async #lookAgainAndAgain(): Promise<void> {
    let pauseMs = FIRST_LOOK_MS;
    do {
      const told = this.#told;
      // What ends a long wait is looked at soon again: something else may be late by now.
      await condition(() => this.#told !== told, pauseMs);
      const late = this.#nextLate();
      if (late) await this.#describe(late);
      pauseMs = late ? Math.min(pauseMs * 2, LONGEST_PAUSE_MS) : FIRST_LOOK_MS;
    } while (this.#out.size > 0);
    this.#isWatching = false;
  }

  /** The one that is out longest, if it was out when last looked. */
  #nextLate(): Out | null {
    for (const out of this.#out) out.looks += 1;
    const [oldest] = this.#out;
    return oldest && oldest.looks > 1 ? oldest : null;
  }

  async #describe(late: Out): Promise<void> {
    const silence = await silenceOf(late.queue);
    const text = waitText(late.queue, late.sinceMs, silence);
    if (this.#out.has(late)) this.#say(late, text);
  }

  #say(out: Out | null, text: string | null): void {
    this.#told = out;
    this.#tell(text);
  }
}
