/** Shows a session until it ends, or until who watches has seen enough. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isSupervisorRunning, readStackFile } from '../engines/stack/stack-file.ts';
import type { StackLayout } from '../engines/stack/layout.ts';
import { messageOf, TidemarkError } from '../schema/domain/errors.ts';
import { askChoice, catchInterrupts, type Choice, isInteractive, type Interrupts } from './interrupts.ts';
import { createLineReporter, createPainter, type LiveSession, renderSession } from './output/progress.ts';
import type { SessionEnd, SessionPicture, SessionView } from './session-view.ts';

export type WatchOptions = {
  layout: StackLayout;
  /** Nothing is shown before the end. */
  quiet: boolean;
  stop(how: 'cancel' | 'graceful'): Promise<void>;
};
export type WatchOutcome =
  | { kind: 'ended'; picture: SessionPicture; end: SessionEnd }
  /** The session goes on. */
  | { kind: 'detached' };

const REFRESH_MS = 1000;

type Screen = { show(live: LiveSession): void; /** What comes next stands below what was shown. */ leave(): void };

function openScreen(quiet: boolean): Screen {
  if (quiet) return { show: () => undefined, leave: () => undefined };
  if (process.stdout.isTTY) {
    const painter = createPainter(process.stdout);
    // A terminal that does not know its size says 0.
    const show = (live: LiveSession): void =>
      painter.paint(renderSession(live, process.stdout.columns || 80, process.stdout.rows || 24));
    return { show, leave: () => painter.done() };
  }
  const report = createLineReporter();
  const show = (live: LiveSession): void => report(live).forEach((line) => console.log(line));
  return { show, leave: () => undefined };
}

/** Sessions outlive the stack that runs them; who watches need not wait for it. */
function assertStackRuns(layout: StackLayout, sessionId: string): void {
  const stack = readStackFile(layout.stackFile);
  if (stack !== null && isSupervisorRunning(stack) && stack.state !== 'stopping') return;
  const message = `the stack was stopped while session ${sessionId} was in work; the session goes on when it runs again`;
  throw new TidemarkError('STACK_NOT_RUNNING', message, { sessionId });
}

/** An open question, while the session goes on behind it. */
class Question {
  readonly #abort = new AbortController();
  answer: Choice | null = null;
  readonly #done: Promise<void>;

  constructor(isGraceful: boolean) {
    this.#done = askChoice(isGraceful, this.#abort.signal).then((choice) => void (this.answer = choice));
  }

  get done(): Promise<void> {
    return this.#done;
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#done;
  }
}

async function stopNow(view: SessionView, how: 'cancel' | 'graceful', options: WatchOptions): Promise<void> {
  try {
    await options.stop(how);
    console.error(how === 'cancel' ? 'asked it to stop' : 'asked it to stop when the VMs in work are done');
  } catch (error) {
    console.error(`warning: session ${view.target.sessionId} could not be asked to stop: ${messageOf(error)}`);
  }
}

async function look(view: SessionView, options: WatchOptions, interrupts: Interrupts): Promise<WatchOutcome> {
  const screen = openScreen(options.quiet);
  let question: Question | null = null;
  // Its end is heard of at once, and once only: from then on it is looked at as before.
  const wakers: Promise<void>[] = [view.closed().then(() => void wakers.pop())];
  for (;;) {
    const picture = await view.refresh();
    if (question === null) screen.show(picture.live);
    if (picture.end !== null) {
      await question?.close();
      screen.leave();
      return { kind: 'ended', picture, end: picture.end };
    }
    assertStackRuns(options.layout, view.target.sessionId);
    if (interrupts.take()) {
      screen.leave();
      await question?.close();
      if (question !== null || !isInteractive()) return { kind: 'detached' };
      question = new Question(view.target.kind === 'backup');
    }
    const pause = new AbortController();
    const slept = sleep(REFRESH_MS, undefined, { signal: pause.signal }).catch(() => undefined);
    await Promise.race([slept, interrupts.next(), ...wakers, ...(question === null ? [] : [question.done])]);
    pause.abort();
    if (question?.answer == null) continue;
    const { answer } = question;
    question = null;
    if (answer === 'detach') return { kind: 'detached' };
    if (answer !== 'continue') await stopNow(view, answer === 'stop' ? 'cancel' : 'graceful', options);
  }
}

/** STACK_NOT_RUNNING when the stack ends under it. */
export async function watchSession(view: SessionView, options: WatchOptions): Promise<WatchOutcome> {
  const interrupts = catchInterrupts();
  try {
    return await look(view, options, interrupts);
  } finally {
    interrupts.end();
  }
}
