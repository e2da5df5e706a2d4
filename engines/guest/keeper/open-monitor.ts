/** Opens a QEMU monitor (QMP) for the keeper's own lasting use. QEMU serves one client per monitor socket. */
import net from 'node:net';
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { MonitorEvent, Seams } from '../../../schema/domain/seams.ts';
import { vmOff, type MonitorConnection, type OpenMonitor } from './monitor-link.ts';
import { createLineSplitter, MAX_REPLY_BYTES, type KeptVm } from './protocol.ts';

type Waiter = { command: string; resolve: (value: unknown) => void; reject: (error: Error) => void };
type Message = {
  QMP?: unknown;
  id?: number;
  return?: unknown;
  error?: { class?: string; desc?: string };
  event?: string;
  data?: Record<string, unknown>;
};

const connectMs = 5_000;
/** To greet and to take capabilities; a monitor that has a client already stays silent for ever. */
const greetingMs = 5_000;
const commandMs = 120_000;

/** VM_OFF: nobody listens. PLATFORM_BUSY: somebody else is connected, or the VM hangs. */
export const openQmpMonitor =
  (seams: Seams): OpenMonitor =>
  async (vm, onEvent) => {
    const socket = await connect(vm);
    const waiting = new Map<number, Waiter>();
    let lastId = 0;
    let lost: Error | null = null;
    const closed = new Promise<void>((resolve) => void socket.once('close', () => resolve()));
    const fail = (error: Error): void => {
      lost ??= error;
      for (const waiter of waiting.values()) waiter.reject(lost);
      socket.destroy();
    };
    const execute = (command: string, args?: Record<string, unknown>, timeoutMs = commandMs): Promise<unknown> =>
      new Promise((resolve, reject) => {
        if (lost) return reject(lost);
        const id = (lastId += 1);
        const timer = setTimeout(() => fail(busy(vm, command, timeoutMs)), timeoutMs);
        const settle = (act: () => void): void => {
          clearTimeout(timer);
          waiting.delete(id);
          act();
        };
        waiting.set(id, {
          command,
          resolve: (value) => settle(() => resolve(value)),
          reject: (error) => settle(() => reject(error)),
        });
        socket.write(`${JSON.stringify({ execute: command, id, ...(args ? { arguments: args } : {}) })}\n`);
      });

    receive(socket, vm, waiting, seams, onEvent, fail);
    // QEMU answers the first command after its greeting; there is no need to wait for that first.
    await execute('qmp_capabilities', undefined, greetingMs);
    return {
      execute: (command, args) => execute(command, args),
      closed,
      close: () => void socket.destroy(),
    } satisfies MonitorConnection;
  };

function receive(
  socket: net.Socket,
  vm: KeptVm,
  waiting: Map<number, Waiter>,
  seams: Seams,
  onEvent: (event: MonitorEvent) => void,
  fail: (error: Error) => void,
): void {
  const split = createLineSplitter(MAX_REPLY_BYTES);
  const take = (message: Message): void => {
    if (message.event !== undefined) {
      onEvent({ event: message.event, data: message.data ?? {}, atMs: seams.clock.now() });
      return;
    }
    const waiter = message.id === undefined ? undefined : waiting.get(message.id);
    if (!waiter) return;
    if (message.error) waiter.reject(refusal(vm, waiter.command, message.error));
    else waiter.resolve(message.return);
  };
  socket.on('data', (chunk) => {
    try {
      for (const line of split(chunk)) take(line);
    } catch (error) {
      fail(lostMonitor(vm, messageOf(error), error));
    }
  });
  socket.on('error', (error) => fail(lostMonitor(vm, error.message, error)));
  socket.on('close', () => fail(lostMonitor(vm, 'the connection was closed')));
}

const connect = (vm: KeptVm): Promise<net.Socket> =>
  new Promise((resolve, reject) => {
    const socket = net.connect(vm.qmp);
    const refuse = (error: NodeJS.ErrnoException): void => {
      clearTimeout(timer);
      socket.destroy();
      const off = error.code === 'ECONNREFUSED' || error.code === 'ENOENT';
      reject(off ? vmOff(vm, error) : lostMonitor(vm, error.message, error));
    };
    const timer = setTimeout(() => refuse(new Error(`no connection within ${connectMs} ms`)), connectMs);
    socket.once('error', refuse).once('connect', () => {
      clearTimeout(timer);
      socket.off('error', refuse);
      resolve(socket);
    });
  });

const about = (vm: KeptVm): { vm: string; socket: string } => ({ vm: vm.vmId, socket: vm.qmp });

const lostMonitor = (vm: KeptVm, why: string, cause?: unknown): TidemarkError =>
  new TidemarkError('UNREACHABLE', `monitor ${vm.qmp} of vm ${vm.vmId} was lost: ${why}`, about(vm), cause);

const busy = (vm: KeptVm, command: string, timeoutMs: number): TidemarkError =>
  new TidemarkError(
    'PLATFORM_BUSY',
    `monitor ${vm.qmp} of vm ${vm.vmId} did not answer ${command} within ${timeoutMs} ms: another client may hold it`,
    about(vm),
  );

const refusal = (vm: KeptVm, command: string, error: { class?: string; desc?: string }): TidemarkError =>
  new TidemarkError(
    'HYPERVISOR_ERROR',
    `vm ${vm.vmId} refused ${command}: ${error.desc ?? error.class ?? 'no reason'}`,
    {
      vm: vm.vmId,
      command,
      class: error.class,
      desc: error.desc,
    },
  );
