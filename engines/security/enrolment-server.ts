/**
 * Where machines enrol, renew their certificates and fetch what is new: a small HTTPS server of the control worker. Bounded in
 * what it reads, how long, and from how many at once.
 */
import { createServer, type Server } from 'node:https';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { MachineId } from '../../schema/domain/ids.ts';
import type { Peer } from '../../schema/domain/security.ts';
import type { Log } from '../../schema/domain/seams.ts';
import type { Authority } from './authority.ts';
import { boundConnections } from './connection-bounds.ts';
import type { Credentials } from './credentials.ts';
import {
  ENROL_PATH,
  enrolRequest,
  type MachineState,
  RENEW_PATH,
  renewRequest,
  STATE_PATH,
} from './enrolment-protocol.ts';
import type { Address } from './secure-transport.ts';
import { bodyOf } from './request-body.ts';

const MOST_BODY_BYTES = 16 * 1024;
const REQUEST_MS = 10_000;
/** How often connections are looked at that have not asked in time. */
const LOOK_MS = 1000;

export type EnrolmentServerOptions = {
  listen: Address;
  authority: Authority;
  /** Of this machine. */
  credentials: Credentials;
  /** Null: nothing was applied for it. */
  configurationOf(machineId: MachineId): Promise<string | null>;
  log: Log;
  /** How long a client has to come to a secure connection, and to ask; default 10 s. */
  requestMs?: number;
};
export type EnrolmentServer = { readonly address: Address; close(): Promise<void> };

/** UNREACHABLE: the address cannot be listened on. */
export async function startEnrolmentServer(options: EnrolmentServerOptions): Promise<EnrolmentServer> {
  const { credentials, listen, log, requestMs = REQUEST_MS } = options;
  const context = () => {
    const { authority, certificate, key } = credentials.current();
    // The authority goes along: a machine that enrols knows only its fingerprint.
    return { minVersion: 'TLSv1.3', ca: authority, cert: `${certificate}${authority}`, key } as const;
  };
  const server = createServer(
    {
      ...context(),
      requestCert: true,
      rejectUnauthorized: false,
      handshakeTimeout: requestMs,
      requestTimeout: requestMs,
      headersTimeout: requestMs,
      connectionsCheckingInterval: LOOK_MS,
    },
    (request, response) => {
      void answer(options, request).then(({ status, body }) => {
        response.writeHead(status, { 'content-type': 'application/json' });
        response.end(JSON.stringify(body));
      });
    },
  );
  boundConnections(server, (socket) => isKnown(credentials, socket));
  server.on('tlsClientError', (error, socket: Socket) =>
    log.info('a client did not come to a secure connection', { from: socket.remoteAddress, error: messageOf(error) }),
  );
  credentials.onChange(() => server.setSecureContext(context()));
  await listening(server, listen);
  const { port } = server.address() as AddressInfo;
  const close = async (): Promise<void> => {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  };
  return { address: { host: listen.host, port }, close };
}

const listening = (server: Server, { host, port }: Address): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(
        new TidemarkError('UNREACHABLE', `cannot listen on ${host}:${port}: ${error.message}`, { host, port }, error),
      ),
    );
    server.listen(port, host, resolve);
  });

type Answer = { status: number; body: unknown };

async function answer(options: EnrolmentServerOptions, request: IncomingMessage): Promise<Answer> {
  const from = request.socket.remoteAddress;
  try {
    const body = await answerTo(options, request);
    return body === null
      ? { status: 404, body: { error: { code: 'NOT_FOUND', message: 'nothing is here' } } }
      : { status: 200, body };
  } catch (error) {
    const known = error instanceof TidemarkError;
    const { code, message } = known ? error : new TidemarkError('BUG', messageOf(error));
    options.log.warn('a machine was refused', { from, path: request.url, code, error: message });
    return { status: known ? 403 : 500, body: { error: { code, message } } };
  }
}

async function answerTo(options: EnrolmentServerOptions, request: IncomingMessage): Promise<unknown> {
  const { authority, log } = options;
  const { method, url } = request;
  if (method === 'POST' && url === ENROL_PATH) {
    const { token, request: csr } = parse(enrolRequest, await bodyOf(request, MOST_BODY_BYTES));
    const given = await authority.enroll(token, csr);
    log.info('a machine is enrolled', { machine: given.machineId, from: request.socket.remoteAddress });
    return given;
  }
  if (method === 'POST' && url === RENEW_PATH) {
    const peer = peerOf(options, request);
    const given = await authority.renew(peer, parse(renewRequest, await bodyOf(request, MOST_BODY_BYTES)).request);
    log.info('a certificate is renewed', { machine: peer.machineId });
    return given;
  }
  if (method !== 'GET' || url !== STATE_PATH) return null;
  const peer = peerOf(options, request);
  const [revocations, configuration] = [await authority.revocations(), await options.configurationOf(peer.machineId)];
  return { revocations, configuration } satisfies MachineState;
}

function isKnown(credentials: Credentials, socket: TLSSocket): boolean {
  try {
    peerOn(credentials, socket);
    return true;
  } catch {
    return false;
  }
}

const peerOf = ({ credentials }: EnrolmentServerOptions, { socket }: IncomingMessage): Peer =>
  peerOn(credentials, socket as TLSSocket);

/** PEER_REFUSED. */
function peerOn(credentials: Credentials, secure: TLSSocket): Peer {
  const certificate = secure.getPeerX509Certificate();
  if (!certificate) throw new TidemarkError('PEER_REFUSED', 'it showed no certificate');
  if (!secure.authorized)
    throw new TidemarkError('PEER_REFUSED', `its certificate is not accepted: ${String(secure.authorizationError)}`);
  return credentials.peerOf(certificate);
}

function parse<T>(
  shape: { safeParse(value: unknown): { success: true; data: T } | { success: false } },
  text: string,
): T {
  const parsed = shape.safeParse(jsonOf(text));
  if (parsed.success) return parsed.data;
  throw new TidemarkError('BAD_REQUEST', 'the request does not have the fields it should');
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
