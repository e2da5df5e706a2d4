/** One connection to the keeper, for one request and, if it is a subscription, the events that follow. */
import net from 'node:net';
import { isErrorCode, messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import { createLineSplitter } from '../../qmp/json-lines.ts';
import { encodeLine, MAX_REPLY_BYTES, type KeeperReply } from './protocol.ts';

export type KeeperCall = {
  /** Throws what the keeper threw; UNREACHABLE when the connection is lost or the time is over. */
  ask(verb: string, params: Record<string, unknown>, timeoutMs: number): Promise<unknown>;
  /** Events of a subscription; ends with the stream; UNREACHABLE when the keeper dies. */
  events(): AsyncGenerator;
  onClose(listener: () => void): void;
  close(): void;
};

/** Events kept for a reader that does not take them. */
const maxEventsWaiting = 10_000;
const connectMs = 5_000;

export async function dial(path: string, seams: Seams): Promise<KeeperCall> {
  const socket = await connect(path);
  const split = createLineSplitter(MAX_REPLY_BYTES);
  const waiting = new Map<number, (reply: KeeperReply | Error) => void>();
  const events: unknown[] = [];
  let ended: Error | 'end' | null = null;
  let wake: () => void = () => undefined;
  let lastId = 0;

  const fail = (error: Error): void => {
    ended ??= error;
    for (const receive of waiting.values()) receive(error);
    wake();
    socket.destroy();
  };
  const take = (reply: KeeperReply): void => {
    if ('event' in reply) events.push(reply.event);
    else if (reply.end) ended ??= 'end';
    else waiting.get(reply.id)?.(reply);
    if (events.length > maxEventsWaiting) fail(unreachable(path, 'was left: its events were not taken'));
    wake();
  };
  socket.on('error', (error) => fail(unreachable(path, `failed: ${error.message}`, error)));
  socket.on('close', () => fail(unreachable(path, 'closed the connection')));
  socket.on('data', (chunk) => {
    try {
      for (const line of split(chunk)) take(line as KeeperReply);
    } catch (error) {
      fail(unreachable(path, `broke the protocol: ${messageOf(error)}`, error));
    }
  });

  return {
    ask: (verb, params, timeoutMs) =>
      new Promise((resolve, reject) => {
        if (ended instanceof Error) return reject(ended);
        const id = (lastId += 1);
        const timer = setTimeout(() => {
          seams.log.warn('guest keeper did not answer', { socket: path, verb, timeoutMs });
          fail(unreachable(path, `did not answer ${verb} within ${timeoutMs} ms`));
        }, timeoutMs);
        waiting.set(id, (reply) => {
          clearTimeout(timer);
          waiting.delete(id);
          if (reply instanceof Error) reject(reply);
          else if (reply.error) reject(asError(reply.error));
          else resolve(reply.result);
        });
        socket.write(encodeLine({ id, verb, params }));
      }),
    events: async function* () {
      for (;;) {
        while (events.length > 0) yield events.shift();
        if (ended === 'end') return;
        if (ended) throw ended;
        await new Promise<void>((resolve) => (wake = resolve));
      }
    },
    onClose: (listener) => void socket.on('close', listener),
    close: () => void socket.destroy(),
  };
}

const asError = (error: NonNullable<KeeperReply['error']>): TidemarkError =>
  new TidemarkError(isErrorCode(error.code) ? error.code : 'BUG', error.message, error.details);

const unreachable = (path: string, why: string, cause?: unknown): TidemarkError =>
  new TidemarkError('UNREACHABLE', `guest keeper at ${path} ${why}`, { socket: path }, cause);

const connect = (path: string): Promise<net.Socket> =>
  new Promise((resolve, reject) => {
    const socket = net.connect(path);
    const refuse = (error: Error): void => {
      clearTimeout(timer);
      socket.destroy();
      reject(unreachable(path, `cannot be reached: ${error.message}`, error));
    };
    const timer = setTimeout(() => refuse(new Error(`no connection within ${connectMs} ms`)), connectMs);
    socket.once('error', refuse);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.off('error', refuse);
      resolve(socket);
    });
  });
