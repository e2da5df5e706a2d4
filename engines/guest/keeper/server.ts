/** The keeper's socket: lines in, lines out. What the verbs do is `handle`'s affair. */
import { chmod, mkdir, rm } from 'node:fs/promises';
import net from 'node:net';
import { dirname } from 'node:path';
import { errorCodeOf, messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import { badRequest } from './params.ts';
import type { Log } from '../../../schema/domain/seams.ts';
import { createLineSplitter } from '../../qmp/json-lines.ts';
import {
  encodeLine,
  MAX_BEHIND_BYTES,
  MAX_CONNECTIONS,
  MAX_REPLY_BYTES,
  MAX_REQUEST_BYTES,
  MAX_REQUESTS_AT_ONCE,
  type KeeperError,
  type KeeperReply,
} from './protocol.ts';

/** One caller. `closed` aborts when its connection is lost; `owner` identifies it. */
export type Caller = { owner: object; closed: AbortSignal };
/** A stream goes on after the reply until it ends by itself or the caller's connection closes. */
export type Answer = { result: unknown; stream?: AsyncIterable<unknown> };
export type Handle = (verb: string, params: Record<string, unknown>, caller: Caller) => Promise<Answer>;

export type KeeperServer = { close(): Promise<void> };

/** PLATFORM_BUSY when another process listens on the socket already. */
export async function listen(
  path: string,
  handle: Handle,
  onLost: (owner: object) => void,
  log: Log,
): Promise<KeeperServer> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await clearStaleSocket(path);
  const connections = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    if (connections.size >= MAX_CONNECTIONS) {
      log.warn('refused a connection: too many', { connections: connections.size });
      socket.destroy();
      return;
    }
    connections.add(socket);
    const closed = serve(socket, handle, log);
    socket.on('close', () => {
      connections.delete(socket);
      closed.abort();
      onLost(closed);
    });
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve));
  await chmod(path, 0o600);
  return {
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of connections) socket.destroy();
      await closed;
    },
  };
}

/** The abort controller of a connection is its identity, too. */
function serve(socket: net.Socket, handle: Handle, log: Log): AbortController {
  const closed = new AbortController();
  const split = createLineSplitter(MAX_REQUEST_BYTES);
  let atOnce = 0;
  const send = (reply: KeeperReply): void => {
    if (!socket.destroyed) socket.write(fitting(reply));
  };
  const answer = async (id: number, verb: string, params: Record<string, unknown>): Promise<void> => {
    atOnce += 1;
    try {
      if (atOnce > MAX_REQUESTS_AT_ONCE) throw badRequest(`more than ${MAX_REQUESTS_AT_ONCE} requests at once`);
      const { result, stream } = await handle(verb, params, { owner: closed, closed: closed.signal });
      send({ id, result: result ?? {} });
      if (stream) await pour(stream, id, socket, send, log);
    } catch (error) {
      send({ id, error: asKeeperError(error) });
    } finally {
      atOnce -= 1;
    }
  };
  socket.on('error', () => undefined);
  socket.on('data', (chunk) => {
    try {
      for (const line of split(chunk)) {
        const { id, verb, params } = line;
        if (typeof id !== 'number' || typeof verb !== 'string') throw new SyntaxError('request has no id or verb');
        void answer(id, verb, isObject(params) ? params : {});
      }
    } catch (error) {
      log.warn('dropped a connection that breaks the protocol', { error: messageOf(error) });
      socket.destroy();
    }
  });
  return closed;
}

async function pour(
  stream: AsyncIterable<unknown>,
  id: number,
  socket: net.Socket,
  send: (reply: KeeperReply) => void,
  log: Log,
): Promise<void> {
  for await (const event of stream) {
    send({ id, event });
    if (socket.writableLength > MAX_BEHIND_BYTES) {
      log.warn('cut an event stream whose reader does not keep up');
      socket.destroy();
    }
    if (socket.destroyed) return;
  }
  send({ id, end: true });
}

function fitting(reply: KeeperReply): string {
  const line = encodeLine(reply);
  if (line.length <= MAX_REPLY_BYTES / 2 || Buffer.byteLength(line) <= MAX_REPLY_BYTES) return line;
  const message = `the reply is longer than ${MAX_REPLY_BYTES} bytes`;
  return encodeLine({ id: reply.id, error: { code: 'HYPERVISOR_ERROR', message, details: {} } });
}

/** A socket file that nobody listens on is left over from a keeper that was killed. */
async function clearStaleSocket(path: string): Promise<void> {
  const alive = await new Promise<boolean>((resolve) => {
    const probe = net.connect(path);
    probe.once('connect', () => resolve(true)).once('error', () => resolve(false));
    probe.on('connect', () => probe.destroy());
  });
  if (alive) throw new TidemarkError('PLATFORM_BUSY', `another guest keeper listens on ${path}`, { socket: path });
  await rm(path, { force: true });
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function asKeeperError(error: unknown): KeeperError {
  const details = (error as { details?: unknown } | null)?.details;
  return { code: errorCodeOf(error) ?? 'BUG', message: messageOf(error), details: isObject(details) ? details : {} };
}
