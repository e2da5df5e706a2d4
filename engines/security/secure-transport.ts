/**
 * TLS 1.3 between machines, both ends with certificates. A server answers also a client without a good certificate, with the
 * reason: the connection is closed after that, and no frame of it was read.
 */
import { createServer as createPlainServer, type Server, type Socket } from 'node:net';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { MachineId } from '../../schema/domain/ids.ts';
import type { MachineRole, Peer } from '../../schema/domain/security.ts';
import type { Credentials } from './credentials.ts';

const HANDSHAKE_MS = 10_000;
/** When there are more, one of them has to go: they keep out no machine of the site. */
const MOST_STRANGERS = 64;
const PROTOCOL = { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3' } as const;

export type Address = { host: string; port: number };
export type PeerHandlers = {
  onPeer(socket: TLSSocket, peer: Peer): void;
  /** To be told why and closed; `from`: its address. */
  onRefused(socket: TLSSocket, why: TidemarkError, from: string): void;
  /** Nothing can be told to it: it speaks no TLS, another version, too slowly, or gave way to those that came after it. */
  onBroken(why: string, from: string): void;
};
/** `mostStrangers`: connections that have not, or not yet, proven to be of a machine of the site. */
export type TransportLimits = { handshakeMs?: number; mostStrangers?: number };

/** The end that connects. Errors that `explain` knows come as the socket's. */
export type SecureTransport = {
  /**
   * CERTIFICATE_INVALID, SECURITY_NOT_READY: this machine cannot prove itself. When the other end is revoked, the socket ends
   * with PEER_REFUSED.
   */
  connect(at: Address, expected: { machineId: MachineId; role: MachineRole }): Socket;
  /** To listen with. New connections take certificates as they are then. */
  createServer(handlers: PeerHandlers): Server;
  isRevoked(peer: Peer): boolean;
  onChange(listener: () => void): void;
  /** The error that a failed handshake is, else null. */
  explain(error: unknown, at: Address): TidemarkError | null;
};

export function createSecureTransport(credentials: Credentials, limits: TransportLimits = {}): SecureTransport {
  const proven = new Map<Socket, Peer>();
  credentials.onChange(() => {
    for (const [socket, peer] of proven) if (credentials.isRevoked(peer)) socket.destroy(wasRevoked(peer));
  });
  return {
    connect: (at, expected) => connectTo(credentials, at, expected, proven),
    createServer: (handlers) => createTlsServer(credentials, handlers, limits),
    isRevoked: (peer) => credentials.isRevoked(peer),
    onChange: (listener) => credentials.onChange(listener),
    explain,
  };
}

const wasRevoked = ({ machineId, serial }: Peer): TidemarkError =>
  new TidemarkError('PEER_REFUSED', `the certificate of machine ${machineId} was revoked`, { serial });

function contextOf(credentials: Credentials) {
  const { authority, certificate, key } = credentials.current();
  return { ...PROTOCOL, ca: authority, cert: certificate, key };
}

function connectTo(
  credentials: Credentials,
  { host, port }: Address,
  expected: { machineId: MachineId; role: MachineRole },
  proven: Map<Socket, Peer>,
): Socket {
  const socket = connect({
    host,
    port,
    ...contextOf(credentials),
    // Not the name of a computer but that of a machine of the site is what it has to prove.
    checkServerIdentity: (_name, certificate) => {
      try {
        const peer = credentials.peerOf(certificate);
        requirePeer(peer, expected);
        proven.set(socket, peer);
        return undefined;
      } catch (error) {
        return error as Error;
      }
    },
  });
  return socket.once('close', () => proven.delete(socket));
}

/** PEER_REFUSED: it is another machine, or may not do this. */
export function requirePeer(peer: Peer, { machineId, role }: { machineId?: MachineId; role: MachineRole }): void {
  const refuse = (why: string): never => {
    throw new TidemarkError('PEER_REFUSED', `machine ${peer.machineId} ${why}`, { machine: peer.machineId, role });
  };
  if (machineId !== undefined && peer.machineId !== machineId) refuse(`answers where machine ${machineId} should`);
  if (!peer.roles.includes(role)) refuse(`may not act as ${role}: its certificate says ${peer.roles.join(', ')}`);
}

function createTlsServer(credentials: Credentials, handlers: PeerHandlers, limits: TransportLimits): Server {
  // By address and port, in the order in which they came.
  const strangers = new Map<string, Socket>();
  const secure = createServer({
    ...PROTOCOL,
    requestCert: true,
    rejectUnauthorized: false,
    handshakeTimeout: limits.handshakeMs ?? HANDSHAKE_MS,
  });
  secure.on('secureConnection', (socket) => {
    const from = addressOf(socket);
    const onPeer: PeerHandlers['onPeer'] = (...of) => {
      strangers.delete(from);
      handlers.onPeer(...of);
    };
    judge(credentials, socket, from, { ...handlers, onPeer });
  });
  secure.on('tlsClientError', (error, socket) => {
    // One that is gone has no address to name: it left, or gave way, which is told already.
    if (socket.remoteAddress !== undefined) handlers.onBroken(messageOf(error), addressOf(socket));
    socket.destroy();
  });
  let isReady = false;
  // Until this machine has a certificate there is nothing to shake hands with; it may come at any time.
  const renew = (): void => {
    try {
      secure.setSecureContext(contextOf(credentials));
      isReady = true;
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
    }
  };
  renew();
  credentials.onChange(renew);
  return createPlainServer((socket) => {
    const from = addressOf(socket);
    if (!isReady) {
      handlers.onBroken('this machine has no certificate', from);
      return socket.destroy();
    }
    strangers.set(from, socket);
    socket.once('close', () => strangers.delete(from));
    if (strangers.size > (limits.mostStrangers ?? MOST_STRANGERS)) {
      const [other, who] = firstToGo(strangers);
      handlers.onBroken('too many connections were opened after it', who);
      strangers.delete(who);
      other.destroy();
    }
    return secure.emit('connection', socket);
  });
}

/** The oldest of the address that has most of them: who opens many makes way himself, and never the newest does. */
function firstToGo(strangers: ReadonlyMap<string, Socket>): [Socket, string] {
  const ofAddress = new Map<string | undefined, [Socket, string][]>();
  for (const [from, socket] of strangers) {
    const others = ofAddress.get(socket.remoteAddress) ?? [];
    ofAddress.set(socket.remoteAddress, [...others, [socket, from]]);
  }
  return [...ofAddress.values()].reduce((most, one) => (one.length > most.length ? one : most))[0]!;
}

const addressOf = (socket: Socket): string => `${socket.remoteAddress}:${socket.remotePort}`;

function judge(credentials: Credentials, socket: TLSSocket, from: string, handlers: PeerHandlers): void {
  try {
    const certificate = socket.getPeerX509Certificate();
    if (!certificate) throw new TidemarkError('PEER_REFUSED', 'it showed no certificate');
    if (!socket.authorized)
      throw new TidemarkError('PEER_REFUSED', `its certificate is not accepted: ${String(socket.authorizationError)}`);
    handlers.onPeer(socket, credentials.peerOf(certificate));
  } catch (error) {
    handlers.onRefused(socket, error as TidemarkError, from);
  }
}

const clockCodes = new Set(['CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID']);
const certificateCodes =
  /^(?:CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|INVALID_|HOSTNAME_MISMATCH|ERR_TLS_|ERR_SSL_|ERR_OSSL_|EPROTO)/;

function explain(error: unknown, { host, port }: Address): TidemarkError | null {
  if (error instanceof TidemarkError) return error;
  const { code } = error as { code?: unknown };
  if (typeof code !== 'string' || !certificateCodes.test(code)) return null;
  const isClock = clockCodes.has(code);
  const now = new Date().toISOString();
  return new TidemarkError(
    isClock ? 'CERTIFICATE_INVALID' : 'PEER_REFUSED',
    `no secure connection to ${host}:${port}: ${messageOf(error)}${isClock ? `, the clock of this machine says ${now}` : ''} (${code})`,
    { code },
    error,
  );
}
