/**
 * The keeper's hold on one VM's monitor: connected whenever somebody listens there, for ever tried again when not.
 * Events are passed on to whoever subscribed, those of our own making included.
 */
import { messageOf, type TidemarkError } from '../../../schema/domain/errors.ts';
import type { MonitorEvent, Seams } from '../../../schema/domain/seams.ts';
import { nobodyListens } from '../../qmp/client.ts';
import { SCRATCH_FULL, type KeptVm } from './protocol.ts';
import type { Rescuer } from './rescuer.ts';

/** A connection to a monitor, as `engines/qmp` makes it. `closed` resolves when it ends, for whatever reason. */
export type MonitorConnection = {
  execute(command: string, args?: Record<string, unknown>): Promise<unknown>;
  closed: Promise<void>;
  close(): void;
};
/** VM_OFF when nobody listens. `onEvent` gets every event from the first on. */
export type OpenMonitor = (vm: KeptVm, onEvent: (event: MonitorEvent) => void) => Promise<MonitorConnection>;

export type MonitorLink = {
  readonly connected: boolean;
  execute(command: string, args?: Record<string, unknown>): Promise<unknown>;
  /** In force when this resolves. The stream ends when the monitor closes or the signal aborts. */
  events(signal: AbortSignal): Promise<AsyncIterable<MonitorEvent>>;
  close(): void;
};

const retryMs = { first: 100, most: 3_000 };
/** Events a subscriber may be behind; then its stream ends. */
const maxWaiting = 10_000;

export function createMonitorLink(vm: KeptVm, open: OpenMonitor, rescuer: Rescuer, seams: Seams): MonitorLink {
  const { clock } = seams;
  const log = seams.log.child({ vm: vm.vmId, socket: vm.qmp });
  const closing = new AbortController();
  const subscribers = new Set<Subscriber>();
  let current: MonitorConnection | null = null;
  let opening: Promise<MonitorConnection> | null = null;

  const publish = (event: MonitorEvent): void => {
    for (const subscriber of subscribers) subscriber.push(event);
  };
  const took = (rescue: object | null): void => {
    if (rescue) publish({ event: SCRATCH_FULL, data: { ...rescue }, atMs: clock.now() });
  };

  const openNow = async (): Promise<MonitorConnection> => {
    const early: MonitorEvent[] = [];
    let handle = (event: MonitorEvent): void => void early.push(event);
    const connection = await open(vm, (event) => handle(event));
    if (closing.signal.aborted) connection.close();
    const execute: MonitorConnection['execute'] = (command, args) => connection.execute(command, args);
    handle = (event) => {
      publish(event);
      void rescuer.onEvent(vm, event, execute).then(took);
    };
    current = connection;
    for (const event of early) handle(event);
    void connection.closed.then(() => {
      current = null;
      for (const subscriber of subscribers) subscriber.end();
      log.info('monitor closed');
    });
    log.info('monitor connected');
    void rescuer.onConnected(vm, execute).then(took);
    return connection;
  };

  const ensure = (): Promise<MonitorConnection> => {
    if (current) return Promise.resolve(current);
    opening ??= openNow().finally(() => (opening = null));
    return opening;
  };

  void keepConnected(ensure, seams, closing.signal);

  return {
    get connected() {
      return current !== null;
    },
    execute: async (command, args) => await (await ensure()).execute(command, args),
    events: async (signal) => {
      await ensure();
      const subscriber = createSubscriber(() => subscribers.delete(subscriber));
      subscribers.add(subscriber);
      if (signal.aborted) subscriber.end();
      signal.addEventListener('abort', () => subscriber.end(), { once: true });
      return subscriber.stream();
    },
    close: () => {
      closing.abort();
      current?.close();
    },
  };
}

async function keepConnected(
  ensure: () => Promise<MonitorConnection>,
  { clock, log }: Seams,
  closing: AbortSignal,
): Promise<void> {
  for (let waitMs = retryMs.first; !closing.aborted; waitMs = Math.min(waitMs * 2, retryMs.most)) {
    try {
      const connection = await ensure();
      await connection.closed;
      waitMs = retryMs.first;
    } catch (error) {
      log.debug('monitor cannot be reached', { error: messageOf(error) });
    }
    await clock.sleep(waitMs, closing).catch(() => undefined);
  }
}

type Subscriber = { push(event: MonitorEvent): void; end(): void; stream(): AsyncIterable<MonitorEvent> };

function createSubscriber(left: () => void): Subscriber {
  const waiting: MonitorEvent[] = [];
  let ended = false;
  let wake: () => void = () => undefined;
  const end = (): void => {
    ended = true;
    left();
    wake();
  };
  return {
    end,
    push: (event) => {
      if (waiting.push(event) > maxWaiting) end();
      wake();
    },
    stream: async function* () {
      try {
        for (;;) {
          while (waiting.length > 0) yield waiting.shift()!;
          if (ended) return;
          await new Promise<void>((resolve) => (wake = resolve));
        }
      } finally {
        end();
      }
    },
  };
}

/** The error of a monitor nobody listens on. */
export const vmOff = (vm: KeptVm, cause: unknown): TidemarkError =>
  nobodyListens({ socket: vm.qmp, owner: `vm ${vm.vmId}`, details: { vm: vm.vmId } }, cause);
