/** The client's side of greeting: connect, HELLO, follow one GO_TO, WELCOME. */
import { connect, type Socket } from 'node:net';
import path from 'node:path';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { TargetEndpoint } from '../../../schema/domain/hypervisor.ts';
import {
  chooseVersion,
  type Hello,
  type Message,
  protocolVersions,
  type Welcome,
} from '../../../schema/wire/messages.ts';
import { type Address, type ClientEnd, reach, type WireEndpoint } from './secure-ends.ts';
import { readInto, Wire } from './wire.ts';

const GREETING_TIMEOUT_MS = 20_000;
/** Until an address behind which there is another one has taken the connection, TLS included: a greeting may take longer. */
const NEXT_ADDRESS_MS = 5000;
export const SOFTWARE = 'tidemark';
export const versions = { ...protocolVersions, software: SOFTWARE };

export type ClientOptions = {
  onMessage(message: Message, payload: Buffer): void;
  onEnd(error: Error | null): void;
  /** How long the target may say nothing while it owes an answer. */
  silenceMs?: number;
  /** Ends the greeting; the connection itself is the caller's to end. */
  signal?: AbortSignal;
  /** For targets of other machines; without it there are none. */
  secure?: ClientEnd | undefined;
  /** How long each of several addresses may take until it is connected, before the next is tried; default 5 s. */
  nextAddressMs?: number;
};
export type OpenedWire = { wire: Wire; welcome: Welcome };

export const describeEndpoint = (at: TargetEndpoint): string => ('unix' in at ? at.unix : `${at.host}:${at.port}`);

/**
 * By the first of its addresses at which it answers. UNREACHABLE (details.lost): nobody listens, no answer, or the connection was lost; worth trying again. PEER_REFUSED,
 * CERTIFICATE_INVALID: one of both ends does not take the other's certificate. Any other code is the target's refusal.
 * `options` hear everything after WELCOME.
 */
export async function openWire(target: TargetEndpoint, hello: Hello, options: ClientOptions): Promise<OpenedWire> {
  const [first, ...others] = reach(target, options.secure);
  if (others.length === 0) return await openAt(first, hello, options);
  const failed: Failed[] = [];
  for (const endpoint of [first, ...others]) {
    try {
      return await openAt(endpoint, hello, { ...options, connectMs: options.nextAddressMs ?? NEXT_ADDRESS_MS });
    } catch (error) {
      if (!isUnanswered(error) && !isStranger(error)) throw error;
      options.secure?.onUnanswered(endpoint as Address, error);
      failed.push({ endpoint, error });
    }
  }
  throw noneAnswered(failed);
}

type Failed = { endpoint: WireEndpoint; error: TidemarkError };

/**
 * Somebody else may be at any address, like that of a bridge each machine has one of. He has heard nothing: HELLO leaves
 * when the other end has proven to be the target. What that says itself is its answer.
 */
const isStranger = (error: unknown): error is TidemarkError =>
  error instanceof TidemarkError &&
  ['PEER_REFUSED', 'CERTIFICATE_INVALID'].includes(error.code) &&
  error.details['from'] === undefined;

/** Anything else is an answer, and would be none other at another address. */
const isUnanswered = (error: unknown): error is TidemarkError =>
  error instanceof TidemarkError && error.code === 'UNREACHABLE' && error.details['lost'] === true;

/** Where an address gave no answer the target may be just not there, whoever is at others: worth trying again. */
function noneAnswered(failed: readonly Failed[]): TidemarkError {
  const { error } = failed.find((one) => isUnanswered(one.error)) ?? failed[0]!;
  const said = failed.map((one) => {
    const { message } = one.error;
    return isStranger(one.error) ? `${describeEndpoint(one.endpoint)}: ${message}` : message;
  });
  return new TidemarkError(error.code, said.join('; '), error.details, error);
}

type GreetingOptions = ClientOptions & { connectMs?: number };

async function openAt(endpoint: WireEndpoint, hello: Hello, options: GreetingOptions): Promise<OpenedWire> {
  const first = await greet(endpoint, hello, options);
  if ('welcome' in first) return first;
  const second = await greet(checkedDetour(endpoint, first.goTo), hello, options);
  if ('welcome' in second) return second;
  throw new TidemarkError('PROTOCOL_ERROR', `target at ${describeEndpoint(endpoint)} sends from door to door`, {
    field: 'GO_TO',
  });
}

/** A target may only point into its own folder: whoever speaks for it must not choose where we connect. */
function checkedDetour(endpoint: WireEndpoint, goTo: string): WireEndpoint {
  if ('unix' in endpoint && path.dirname(goTo) === path.dirname(endpoint.unix)) return { unix: goTo };
  throw new TidemarkError(
    'PROTOCOL_ERROR',
    `frame refused: GO_TO path is ${goTo}, allowed is the folder of ${describeEndpoint(endpoint)}`,
    { field: 'GO_TO path' },
  );
}

/** The error that an ERROR frame stands for; `lost` for those that invite to come again. */
export function errorOfPeer(message: Extract<Message, { type: 'error' }>, what: string): TidemarkError {
  const again = ['UNREACHABLE', 'HOST_DRAINING', 'TRANSFER_FAILED'].includes(message.code);
  return new TidemarkError(message.code, message.message, { from: what, ...(again ? { lost: true } : {}) });
}

async function openSocket(
  endpoint: WireEndpoint,
  secure: ClientEnd | undefined,
  onread: ReturnType<typeof readInto>,
): Promise<Socket> {
  if ('unix' in endpoint) return connect({ path: endpoint.unix, onread });
  const { host, port, machineId } = endpoint;
  if (machineId === undefined || secure === undefined) return connect({ host, port, onread });
  return await secure.connect({ host, port }, { machineId, role: 'repository' });
}

/** A handshake that failed is no lost connection: trying again does not mend it. */
function explained(error: Error, endpoint: WireEndpoint, secure: ClientEnd | undefined): Error {
  const isLost = error instanceof TidemarkError && error.code === 'UNREACHABLE' && error.cause instanceof Error;
  return isLost && !('unix' in endpoint) ? (secure?.explain(error.cause, endpoint) ?? error) : error;
}

async function greet(
  endpoint: WireEndpoint,
  hello: Hello,
  options: GreetingOptions,
): Promise<OpenedWire | { goTo: string }> {
  const what = `target ${describeEndpoint(endpoint)}`;
  const { signal, silenceMs, secure, connectMs } = options;
  signal?.throwIfAborted();
  let take: (bytes: Buffer) => void = () => undefined;
  const socket = await openSocket(
    endpoint,
    secure,
    readInto((bytes) => take(bytes)),
  );
  return await new Promise((resolve, reject) => {
    let greeted = false;
    let welcomed = false;
    const giveUp = (): void => wire.destroy(signal?.reason as Error);
    const settle = (): void => {
      callOff();
      signal?.removeEventListener('abort', giveUp);
    };
    const wire = new Wire({
      socket,
      what,
      ...(silenceMs === undefined ? {} : { silenceMs }),
      onMessage: (message, payload) => {
        if (message.type === 'error') return wire.destroy(errorOfPeer(message, what));
        if (greeted) return options.onMessage(message, payload);
        // It must have chosen one of ours.
        if (message.type === 'welcome')
          chooseVersion({ lowestVersion: message.version, highestVersion: message.version }, 'WELCOME version');
        greeted = true;
        settle();
        if (message.type === 'welcome') {
          welcomed = true;
          return resolve({ wire, welcome: message });
        }
        wire.close();
        if (message.type === 'goTo') return resolve({ goTo: message.path });
        reject(new TidemarkError('PROTOCOL_ERROR', `${what} answered HELLO with ${message.type}`, { field: 'type' }));
      },
      onEnd: (error) => {
        settle();
        const early = error ?? new TidemarkError('UNREACHABLE', `${what} closed`, { lost: true });
        if (!greeted) reject(explained(early, endpoint, secure));
        // The end of a connection that only pointed elsewhere is not the end of the one wanted.
        else if (welcomed) options.onEnd(error);
      },
    });
    take = (bytes) => wire.take(bytes);
    const greetingMs = Math.min(GREETING_TIMEOUT_MS, silenceMs ?? GREETING_TIMEOUT_MS);
    const callOff = boundGreeting(wire, { socket, what, greetingMs, connectMs });
    signal?.addEventListener('abort', giveUp, { once: true });
    wire.send(hello);
  });
}

/** Ends one that takes too long: in all, and (of those with a `connectMs`, which are over TLS) until it is connected. */
function boundGreeting(
  wire: Wire,
  of: { socket: Socket; what: string; greetingMs: number; connectMs: number | undefined },
): () => void {
  const endAfter = (ms: number, why: string): NodeJS.Timeout =>
    setTimeout(() => wire.destroy(new TidemarkError('UNREACHABLE', `${of.what} ${why} in time`, { lost: true })), ms);
  const greeting = endAfter(of.greetingMs, 'did not answer HELLO');
  const connecting = of.connectMs === undefined ? undefined : endAfter(of.connectMs, 'took no connection');
  of.socket.once('secureConnect', () => clearTimeout(connecting));
  return () => {
    clearTimeout(greeting);
    clearTimeout(connecting);
  };
}
