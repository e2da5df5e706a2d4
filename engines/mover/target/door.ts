/** The one configured path of a target on a Unix socket: it hears HELLO and sends the client on to a lane. */
import { chmodSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { refuse } from '../../../schema/wire/frame.ts';
import { Wire } from '../wire-session/wire.ts';
import { armHello, type WireTimeouts } from './lane.ts';

export type Door = {
  /** Sends those away who are being greeted. */
  close(): Promise<void>;
};

/** A socket file left by a dead process is removed. UNREACHABLE: the path cannot be listened on. */
export async function openDoor(
  socketPath: string,
  nextPath: () => string,
  timeouts: WireTimeouts | undefined,
): Promise<Door> {
  const wires = new Set<Wire>();
  const greet = (socket: Socket): void => {
    const wire = new Wire({
      socket,
      what: 'client at the door',
      onMessage: (message) => {
        if (message.type !== 'hello') throw refuse('type', message.type, 'HELLO');
        wire.send({ type: 'goTo', path: nextPath() });
        wire.close();
      },
      onEnd: () => {
        clearTimeout(timer);
        wires.delete(wire);
      },
    });
    wires.add(wire);
    const timer = armHello(wire, timeouts);
  };
  rmSync(socketPath, { force: true });
  const server = createServer(greet);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(
        new TidemarkError('UNREACHABLE', `cannot listen on ${socketPath}: ${error.message}`, { socketPath }, error),
      ),
    );
    server.listen(socketPath, resolve);
  });
  chmodSync(socketPath, 0o600);
  return {
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const wire of wires) wire.fail(new TidemarkError('HOST_DRAINING', 'the repository worker is shutting down'));
      await closed;
    },
  };
}
