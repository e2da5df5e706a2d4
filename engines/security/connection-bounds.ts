/** Who may hold a connection of the enrolment server: strangers never keep out machines that prove who they are. */
import type { Socket } from 'node:net';
import type { Server, TLSSocket } from 'node:tls';

const MOST_CONNECTIONS = 64;
/** When there are more, the oldest stranger has to go. */
const MOST_OF_AN_ADDRESS = 16;
/** Without an accepted certificate, or not yet with one. */
const MOST_STRANGERS = 24;

const keyOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress}:${remotePort}`;

/** `isKnown`: it has proven to be a machine of the site. */
export function boundConnections(server: Server, isKnown: (socket: TLSSocket) => boolean): void {
  const countOf = new Map<string, number>();
  // In the order in which they came.
  const strangers = new Map<string, Socket>();
  server.maxConnections = MOST_CONNECTIONS;
  server.on('connection', (socket: Socket) => {
    const [key, address] = [keyOf(socket), String(socket.remoteAddress)];
    const count = (countOf.get(address) ?? 0) + 1;
    countOf.set(address, count);
    strangers.set(key, socket);
    socket.once('close', () => {
      strangers.delete(key);
      const left = countOf.get(address)! - 1;
      if (left === 0) countOf.delete(address);
      else countOf.set(address, left);
    });
    const isAddressFull = count > MOST_OF_AN_ADDRESS;
    if (!isAddressFull && strangers.size <= MOST_STRANGERS) return;
    // The newest is among them: where all others of its address are known, it goes itself.
    const isMeant = (one: Socket): boolean => !one.destroyed && (!isAddressFull || one.remoteAddress === address);
    [...strangers.values()].find(isMeant)?.destroy();
  });
  server.on('secureConnection', (socket) => {
    if (isKnown(socket)) strangers.delete(keyOf(socket));
  });
}
