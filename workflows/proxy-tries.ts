/**
 * The tries of one disk on its proxy: how many in a row that bring it no further, how long between them, and how long a
 * proxy that does not take the work up is waited for. A missed bound to start proves nothing (a live worker whose slots are full misses it too), so the
 * worker's own signs are asked.
 */
import { CancellationScope, isCancellation, patched, sleep } from '@temporalio/workflow';
import type { ProxyId } from '../schema/domain/ids.ts';
import { proxyQueue } from '../schema/domain/queues.ts';
import type { Finding } from '../schema/domain/states.ts';
import { PROXY_START_MS } from './activity-options.ts';
import { isWorthAnotherTry, lastHeartbeatOf, viewOf, wasNotTakenUp } from './failures.ts';
import { isSilent, silenceOf, waitText } from './machine-silence.ts';

/** In a row, none of which has brought the disk further. */
const MOST_TRIES = 5;
const FIRST_PAUSE_MS = 2000;
const LONGEST_PAUSE_MS = 30_000;

export type TriesOf = {
  verb: 'transferDisk' | 'restoreDisk';
  /** For people: "disk d0". */
  what: string;
  /** How long a silent proxy is waited for. */
  machineWaitMs: number;
  tell: (waitsFor: string | null) => void;
  note: (finding: Finding) => void;
};

/** Where work goes on whose proxy is silent: it waits for that one, has been given another, or others have taken it over. */
export type GoesOn = 'here' | 'elsewhere' | 'by-others';

export class ProxyTries {
  readonly #of: TriesOf;
  #tries = 0;
  /** Windows that were acknowledged, as far as lost tries have told. */
  #mostAcked = 0;
  #waitingSinceMs: number | null = null;
  #silentSinceMs: number | null = null;
  #told: CancellationScope | null = null;

  constructor(of: TriesOf) {
    this.#of = of;
  }

  /**
   * Resolves when the next try may begin, or others have taken the work over; throws `error` when there is none.
   * `whenSilent` looks for somebody else than a proxy that is silent.
   */
  async another(error: unknown, proxy: ProxyId | null, whenSilent?: () => Promise<GoesOn>): Promise<GoesOn> {
    this.end();
    if (isCancellation(error)) throw error;
    if (proxy !== null && wasNotTakenUp(error, this.#of.verb)) return await this.#waitFor(proxy, error, whenSilent);
    this.#beginToWait();
    await this.#pauseAfter(error);
    return 'here';
  }

  async #pauseAfter(error: unknown): Promise<void> {
    const view = viewOf(error);
    if (this.#wentFurther(error)) this.#tries = 0;
    // A proxy that is told to end says nothing about the disk, which may take days and see many.
    else if (view.code !== 'HOST_DRAINING') this.#tries += 1;
    // What another machine did not take up was waited for long enough already.
    const isOver = this.#tries >= MOST_TRIES || wasNotTakenUp(error) || !isWorthAnotherTry(view);
    if (isOver) throw error;
    this.#of.note({ level: 'info', code: view.code, message: `${this.#of.what} goes on after: ${view.message}` });
    await sleep(Math.min(FIRST_PAUSE_MS * 2 ** Math.max(0, this.#tries - 1), LONGEST_PAUSE_MS));
  }

  /** The disk is read anew: what was acknowledged says nothing any more. */
  beginAnew(): void {
    this.#mostAcked = 0;
  }

  /**
   * It acknowledged windows that no try before it had told of. Such a try is not counted: a large disk takes weeks, each
   * try 48 h at most, and its windows come to an end.
   */
  #wentFurther(error: unknown): boolean {
    const { windowsAcked = 0 } = lastHeartbeatOf(error) ?? {};
    if (windowsAcked <= this.#mostAcked) return false;
    this.#mostAcked = windowsAcked;
    return patched('tries-by-progress');
  }

  /** Nothing is waited for any more. */
  end(): void {
    this.#told?.cancel();
    this.#told = null;
    this.#of.tell(null);
  }

  async #waitFor(proxy: ProxyId, error: unknown, whenSilent?: () => Promise<GoesOn>): Promise<GoesOn> {
    const queue = proxyQueue(proxy);
    const silence = await silenceOf(queue);
    this.#waitingSinceMs ??= Date.now();
    const text = waitText(queue, this.#waitingSinceMs, silence);
    if (!isSilent(silence)) this.#silentSinceMs = null;
    else {
      this.#silentSinceMs ??= Date.now();
      this.#of.tell(text);
      const goesOn = (await whenSilent?.()) ?? 'here';
      if (goesOn !== 'here') return this.#beginToWait(goesOn);
      if (Date.now() - this.#silentSinceMs >= this.#of.machineWaitMs) throw error;
    }
    this.#tellUntilTakenUp(text);
    return 'here';
  }

  #beginToWait(goesOn: GoesOn = 'here'): GoesOn {
    this.end();
    this.#waitingSinceMs = null;
    this.#silentSinceMs = null;
    return goesOn;
  }

  /** A try that has not missed the bound to start was taken up. */
  #tellUntilTakenUp(text: string): void {
    this.#of.tell(text);
    const told = new CancellationScope();
    this.#told = told;
    void told
      .run(() => sleep(PROXY_START_MS + 5000))
      .then(
        () => this.#of.tell(null),
        () => undefined,
      );
  }
}
