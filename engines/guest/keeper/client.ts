/**
 * How the rest of the machine reaches the guest keeper. Each call has a connection of its own, so a keeper that was
 * killed and started again is found without ceremony. A freeze keeps its connection until the thaw: when this process
 * dies, or drops it because the reply did not come, the keeper thaws.
 */
import type { RunKey, VmId } from '../../../schema/domain/ids.ts';
import type { VmRef } from '../../../schema/domain/hypervisor.ts';
import type { Monitor, MonitorEvent, Seams } from '../../../schema/domain/seams.ts';
import { dial, type KeeperCall } from './client-connection.ts';
import type { ExecResult, GuestStatus, Rescue, ThawResult, VmState } from './protocol.ts';
import { MAX_DEADLINE_MS } from './protocol.ts';

/** Same shape as the hypervisor providers' `Freezer`. */
export type KeeperFreezer = {
  /** GUEST_UNREACHABLE, GUEST_FREEZE_FAILED; UNREACHABLE when the keeper died over it (the guest is thawed at its start). */
  freeze(vm: VmRef, run: RunKey, deadlineMs: number): Promise<{ fileSystems: number }>;
  isFrozen(vm: VmRef): Promise<boolean>;
  thaw(vm: VmRef, run: RunKey): Promise<ThawResult>;
};

/** A program to run in the guest. `key` names this one run of it: asked again, the recorded result is given. */
export type KeyedGuestScript = { key: string; path: string; args: string[]; timeoutMs: number };

export type KeeperClient = {
  monitor(vm: VmRef | VmId): Monitor;
  freezer: KeeperFreezer;
  exec(vm: VmRef, script: KeyedGuestScript): Promise<ExecResult>;
  status(vm: VmRef): Promise<GuestStatus>;
  vms(): Promise<VmState[]>;
  /** Guests that were let go on after their scratch space was full, newest last. */
  rescues(vm: VmRef | VmId): Promise<Rescue[]>;
  ping(): Promise<{ pid: number }>;
  /** Drops all connections: guests frozen through this client are thawed by the keeper. */
  close(): void;
};

/** The keeper bounds each verb itself; these are for a keeper that is stopped or stuck. */
const callMs = { default: 20_000, qmp: 150_000, beyondDeadline: 2_000 };

type Connect = () => Promise<KeeperCall>;
type Ask = <T>(verb: string, params: Record<string, unknown>, timeoutMs?: number) => Promise<T>;

export function connectKeeper({ socket, seams }: { socket: string; seams: Seams }): KeeperClient {
  const open = new Set<KeeperCall>();
  const connect = async (): Promise<KeeperCall> => {
    const call = await dial(socket, seams);
    open.add(call);
    call.onClose(() => open.delete(call));
    return call;
  };
  const ask: Ask = async <T>(verb: string, params: Record<string, unknown>, timeoutMs = callMs.default): Promise<T> => {
    const call = await connect();
    try {
      return (await call.ask(verb, params, timeoutMs)) as T;
    } finally {
      call.close();
    }
  };
  return {
    freezer: createFreezer(connect, ask),
    monitor: createMonitors(connect, ask),
    exec: (vm, script) => ask<ExecResult>('exec', { vm: vm.vmId, ...script }, script.timeoutMs + callMs.default),
    status: (vm) => ask<GuestStatus>('status', { vm: vm.vmId }),
    vms: () => ask<VmState[]>('vms', {}),
    rescues: (vm) => ask<Rescue[]>('rescues', { vm: idOf(vm) }),
    ping: () => ask<{ pid: number }>('ping', {}),
    close: () => {
      for (const call of open) call.close();
    },
  };
}

function createFreezer(connect: Connect, ask: Ask): KeeperFreezer {
  /** Connections that hold a freeze. */
  const frozen = new Map<VmId, { run: RunKey; call: KeeperCall }>();
  return {
    freeze: async (vm, run, deadlineMs) => {
      const call = await connect();
      try {
        const boundMs = Math.min(deadlineMs, MAX_DEADLINE_MS);
        const params = { vm: vm.vmId, run, deadlineMs: boundMs };
        const result = (await call.ask('freeze', params, boundMs + callMs.beyondDeadline)) as { fileSystems: number };
        frozen.get(vm.vmId)?.call.close();
        frozen.set(vm.vmId, { run, call });
        return result;
      } catch (error) {
        call.close();
        throw error;
      }
    },
    isFrozen: (vm) => ask<boolean>('isFrozen', { vm: vm.vmId }),
    thaw: async (vm, run) => {
      const held = frozen.get(vm.vmId);
      try {
        return await ask<ThawResult>('thaw', { vm: vm.vmId, run });
      } finally {
        if (held?.run === run) {
          frozen.delete(vm.vmId);
          held.call.close();
        }
      }
    },
  };
}

function createMonitors(connect: Connect, ask: Ask): (vm: VmRef | VmId) => Monitor {
  /** Subscriptions on their way: a command given after one is sent when it is in force. */
  const subscribing = new Map<VmId, Promise<void>>();

  const subscribe = (vmId: VmId, signal: AbortSignal): AsyncIterable<MonitorEvent> => {
    const call = connect();
    const begun = call.then((c) => c.ask('events', { vm: vmId }, callMs.default));
    const settled = begun.then(
      () => undefined,
      () => undefined,
    );
    subscribing.set(vmId, settled);
    void settled.then(() => subscribing.get(vmId) === settled && subscribing.delete(vmId));
    const stop = (): void => void call.then((c) => c.close()).catch(() => undefined);
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    return streamOf(call, begun, signal, () => signal.removeEventListener('abort', stop));
  };

  return (vm) => {
    const vmId = idOf(vm);
    return {
      execute: async <T>(command: string, args?: Record<string, unknown>): Promise<T> => {
        await subscribing.get(vmId);
        return await ask<T>('qmp', { vm: vmId, command, args }, callMs.qmp);
      },
      events: (signal) => subscribe(vmId, signal),
    };
  };
}

async function* streamOf(
  connecting: Promise<KeeperCall>,
  begun: Promise<unknown>,
  signal: AbortSignal,
  ended: () => void,
): AsyncGenerator<MonitorEvent> {
  let call: KeeperCall | null = null;
  try {
    call = await connecting;
    await begun;
    for await (const event of call.events()) yield event as MonitorEvent;
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    ended();
    call?.close();
  }
}

const idOf = (vm: VmRef | VmId): VmId => (typeof vm === 'string' ? vm : vm.vmId);
