/** TLS as the mover is handed it: `engines/security` makes it, the lanes' entries bring it here. */
import type { Server, Socket } from 'node:net';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { TargetEndpoint } from '../../../schema/domain/hypervisor.ts';
import type { MachineId } from '../../../schema/domain/ids.ts';
import type { MachineRole, Peer } from '../../../schema/domain/security.ts';
import type { Message } from '../../../schema/wire/messages.ts';

export type Address = { host: string; port: number };

/** The end that connects. `machineId`: of this machine. */
export type ClientEnd = {
  machineId: MachineId;
  /** CERTIFICATE_INVALID, SECURITY_NOT_READY: this machine cannot prove itself. The rest come as the socket's errors. */
  connect(at: Address, expected: { machineId: MachineId; role: MachineRole }): Promise<Socket>;
  /** The error that a failed handshake is, else null. */
  explain(error: unknown, at: Address): TidemarkError | null;
  /** Told of an address of several that gave no answer, or where somebody else is, before the next one is tried. */
  onUnanswered(at: Address, error: Error): void;
};

export type ServerEnd = {
  createServer(handlers: {
    onPeer(socket: Socket, peer: Peer): void;
    onRefused(socket: Socket, why: TidemarkError, from: string): void;
    onBroken(why: string, from: string): void;
  }): Server;
  isRevoked(peer: Peer): boolean;
  /** When certificates or the revocation list changed. */
  onChange(listener: () => void): void;
  /** PEER_REFUSED: the peer may not do what HELLO says. */
  authorize(peer: Peer, hello: Message): void;
};

/** How the target is reached from here. `machineId`: over TLS, and whom to expect. */
export type WireEndpoint = { unix: string } | (Address & { machineId?: MachineId });

/** In the order in which they are to be tried, never none. BAD_CONFIG: it is on another machine and listens to none. */
export function reach(endpoint: TargetEndpoint, here: ClientEnd | undefined): [WireEndpoint, ...WireEndpoint[]] {
  if (!('unix' in endpoint)) return [endpoint];
  const { unix, machineId, listen } = endpoint;
  if (machineId === undefined || here === undefined || machineId === here.machineId) return [{ unix }];
  if (listen) {
    const { host, port, others = [] } = listen;
    return [{ host, port, machineId }, ...others.map((other) => ({ host: other, port, machineId }))];
  }
  const message = `machine ${machineId} has a repository that listens to no other machine, and this is ${here.machineId}: give the repository \`listen\` in site.yaml`;
  throw new TidemarkError('BAD_CONFIG', message, { machine: machineId });
}
