/**
 * One connection to a guest agent's socket. Replies carry no id and may be stale, so every command is preceded by
 * `guest-sync-delimited` with an id never used before, and everything is dropped until that id comes back.
 * The agent serves one client at a time: to a second one it is silent, which looks like a dead agent.
 */
import net from 'node:net';
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import { createReplyLines, type AgentReply } from './reply-lines.ts';

export type AgentAddress = { vmId: string; socket: string };
/** Largest reply taken, bytes; the output of one guest command is the only large thing in it. */
export const MAX_REPLY_BYTES = 4 * 1024 * 1024;
/** A lost synchronization is repeated with a new id this often within the time of a call. */
const syncAttemptMs = 1_500;

export type AgentConnection = {
  readonly open: boolean;
  /** GUEST_UNREACHABLE when no synchronization succeeds in the time. */
  synchronize(timeoutMs: number): Promise<void>;
  /** One command; null when the time is over (the connection is then of no more use). */
  command(name: string, args: Record<string, unknown> | undefined, timeoutMs: number): Promise<AgentReply | null>;
  close(): void;
};

export const unreachable = (at: AgentAddress, why: string, cause?: unknown): TidemarkError =>
  new TidemarkError(
    'GUEST_UNREACHABLE',
    `guest agent of vm ${at.vmId} at ${at.socket} ${why}`,
    { vm: at.vmId, socket: at.socket },
    cause,
  );

export async function openAgentConnection(at: AgentAddress, seams: Seams, timeoutMs: number): Promise<AgentConnection> {
  const socket = await connect(at, timeoutMs);
  const lines = createReplyLines(MAX_REPLY_BYTES);
  let receive: ((reply: AgentReply | null, error?: Error) => void) | null = null;
  let failure: Error | undefined;

  const end = (error?: Error): void => {
    failure ??= error ?? new Error('connection closed');
    socket.destroy();
    receive?.(null, failure);
  };
  socket.on('error', end).on('close', () => end());
  socket.on('data', (chunk) => {
    try {
      for (const reply of lines(chunk)) receive?.(reply);
    } catch (error) {
      end(error as Error);
    }
  });

  /** Sends and waits for the first reply that `accepts` likes; null when the time is over. */
  const exchange = (
    bytes: Buffer,
    accepts: (reply: AgentReply) => boolean,
    waitMs: number,
  ): Promise<AgentReply | null> =>
    new Promise((resolve, reject) => {
      if (failure) return reject(unreachable(at, `ended: ${failure.message}`, failure));
      const finish = (act: () => void): void => {
        clearTimeout(timer);
        receive = null;
        act();
      };
      const timer = setTimeout(() => finish(() => resolve(null)), Math.max(1, waitMs));
      receive = (reply, error) => {
        if (error) finish(() => reject(unreachable(at, `ended: ${error.message}`, error)));
        else if (reply && accepts(reply)) finish(() => resolve(reply));
      };
      socket.write(bytes);
    });

  const synchronize = async (waitMs: number): Promise<void> => {
    const end = seams.clock.monotonic() + waitMs;
    for (let left = waitMs; left > 0; left = end - seams.clock.monotonic()) {
      const id = Buffer.from(seams.random.bytes(6)).readUIntBE(0, 6);
      const frame = encode('guest-sync-delimited', { id });
      const delimited = Buffer.concat([Buffer.from([0xff]), frame]);
      if (await exchange(delimited, (reply) => reply.return === id, Math.min(left, syncAttemptMs))) return;
    }
    throw unreachable(at, `did not answer within ${Math.round(waitMs)} ms`);
  };

  return {
    get open() {
      return failure === undefined;
    },
    synchronize,
    command: (name, args, waitMs) =>
      exchange(encode(name, args), (reply) => 'return' in reply || reply.error !== undefined, waitMs),
    close: () => end(),
  };
}

const encode = (execute: string, args?: Record<string, unknown>): Buffer =>
  Buffer.from(`${JSON.stringify(args ? { execute, arguments: args } : { execute })}\n`);

const connect = (at: AgentAddress, timeoutMs: number): Promise<net.Socket> =>
  new Promise((resolve, reject) => {
    const socket = net.connect(at.socket);
    const timer = setTimeout(() => {
      socket.destroy();
      reject(unreachable(at, `took no connection within ${timeoutMs} ms`));
    }, timeoutMs);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.removeAllListeners('error');
      resolve(socket);
    });
    socket.once('error', (error) => {
      clearTimeout(timer);
      reject(unreachable(at, `refused the connection: ${messageOf(error)}`, error));
    });
  });
