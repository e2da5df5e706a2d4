/**
 * Ctrl-C while a session is watched. On a terminal the first one asks what to do, a second one while it asks detaches at
 * once; without a terminal it detaches: the session belongs to the stack, not to who looks at it.
 */
import { createInterface } from 'node:readline';

export type Choice = 'detach' | 'stop' | 'graceful' | 'continue';

const question = (isGraceful: boolean): string =>
  `The session goes on by itself. [d]etach, [s]top it, ${isGraceful ? 'stop [g]racefully, ' : ''}or [c]ontinue watching? `;

function choiceOf(answer: string, isGraceful: boolean): Choice | null {
  const letter = answer.trim().toLowerCase();
  if (letter === 'd' || letter === 'detach') return 'detach';
  if (letter === 's' || letter === 'stop') return 'stop';
  if (isGraceful && (letter === 'g' || letter === 'graceful')) return 'graceful';
  return letter === '' || letter === 'c' || letter === 'continue' ? 'continue' : null;
}

export const isInteractive = (): boolean => process.stdin.isTTY && process.stdout.isTTY;

/**
 * Asks until the answer is one; Ctrl-C is "detach", the end of input "continue". The signal ends it with "continue".
 * `isGraceful`: the session can be stopped gracefully.
 */
export function askChoice(isGraceful: boolean, signal: AbortSignal): Promise<Choice> {
  return new Promise((resolve) => {
    const lines = createInterface({ input: process.stdin, output: process.stdout, terminal: true });
    const finish = (choice: Choice): void => {
      signal.removeEventListener('abort', onAbort);
      lines.removeAllListeners('close');
      lines.close();
      resolve(choice);
    };
    const onAbort = (): void => {
      process.stdout.write('\n');
      finish('continue');
    };
    signal.addEventListener('abort', onAbort);
    lines.on('SIGINT', () => {
      process.stdout.write('\n');
      finish('detach');
    });
    lines.on('close', () => finish('continue'));
    const ask = (): void =>
      lines.question(question(isGraceful), (answer) => {
        const choice = choiceOf(answer, isGraceful);
        if (choice === null) ask();
        else finish(choice);
      });
    ask();
  });
}

export type Interrupts = {
  /** Since the last call of `take`. */ take(): boolean;
  /** Resolves at the next one. */ next(): Promise<void>;
  end(): void;
};

/** From here on Ctrl-C no longer ends the process, until `end`. */
export function catchInterrupts(): Interrupts {
  let isPending = false;
  let wake: (() => void) | null = null;
  const onSignal = (): void => {
    isPending = true;
    wake?.();
  };
  process.on('SIGINT', onSignal);
  return {
    take() {
      const was = isPending;
      isPending = false;
      return was;
    },
    next: () => (isPending ? Promise.resolve() : new Promise((resolve) => (wake = resolve))),
    end: () => void process.removeListener('SIGINT', onSignal),
  };
}
