/**
 * A guest agent for tests, as slow, stale, silent or refusing as they wish. Like the real one it serves one client
 * at a time, does one command after another, and goes on with a command whose client has gone.
 */
import net from 'node:net';

export type FakeAgent = {
  frozen: boolean;
  fileSystems: number;
  /** While true nothing is read: what is sent waits, as for a guest that is paused. */
  silent: boolean;
  freezeDelayMs: number;
  refuseFreeze: boolean;
  /** Sent to each new client before all else, as left over from one before it. */
  leftOver: string;
  /** Replies to be swallowed: the next so many synchronizations get no answer. */
  loseSyncs: number;
  /** Commands done, in order. */
  done: string[];
  /** What guest-exec-status gives in turn for any pid; at 'cut' the client is cut off instead. */
  execStatuses: (Record<string, unknown> | 'cut')[];
  readonly hasClient: boolean;
  /** Cuts the present client off; what it asked for goes on. */
  dropClient(): void;
  close(): Promise<void>;
};

type Request = { execute: string; arguments?: Record<string, unknown> };

export async function startFakeAgent(socketPath: string): Promise<FakeAgent> {
  const waiting: net.Socket[] = [];
  let current: net.Socket | null = null;
  let work: Promise<void> = Promise.resolve();

  const serveNext = (): void => {
    current = waiting.shift() ?? null;
    if (!current) return;
    const socket = current;
    if (agent.leftOver) socket.write(agent.leftOver);
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = text.slice(0, end);
        text = text.slice(end + 1);
        work = work.then(() => answer(agent, socket, line));
      }
    });
  };
  const server = net.createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('close', () => {
      const at = waiting.indexOf(socket);
      if (at >= 0) waiting.splice(at, 1);
      if (socket === current) serveNext();
    });
    waiting.push(socket);
    if (!current) serveNext();
  });
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));

  const agent: FakeAgent = {
    frozen: false,
    fileSystems: 2,
    silent: false,
    freezeDelayMs: 0,
    refuseFreeze: false,
    leftOver: '',
    loseSyncs: 0,
    done: [],
    execStatuses: [{ exited: true, exitcode: 0 }],
    get hasClient() {
      return current !== null;
    },
    dropClient: () => void current?.destroy(),
    close: async () => {
      agent.silent = false;
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of [...waiting, ...(current ? [current] : [])]) socket.destroy();
      await closed;
    },
  };
  return agent;
}

const sleep = (durationMs: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, durationMs));

async function answer(agent: FakeAgent, socket: net.Socket, line: string): Promise<void> {
  while (agent.silent) await sleep(10);
  const request = JSON.parse(line.slice(line.lastIndexOf('\xff') + 1)) as Request;
  const reply = await perform(agent, request);
  if (reply === null || socket.destroyed) return;
  if (request.execute === 'guest-sync-delimited') socket.write(Buffer.from([0xff]));
  socket.write(`${JSON.stringify(reply)}\n`);
}

async function perform(agent: FakeAgent, { execute, arguments: args }: Request): Promise<object | null> {
  agent.done.push(execute);
  switch (execute) {
    case 'guest-sync-delimited':
      agent.loseSyncs -= 1;
      return agent.loseSyncs >= 0 ? null : { return: args?.['id'] };
    case 'guest-fsfreeze-freeze':
      if (agent.freezeDelayMs > 0) await sleep(agent.freezeDelayMs);
      if (agent.refuseFreeze || agent.frozen) return { error: { class: 'GenericError', desc: 'cannot freeze /mnt' } };
      agent.frozen = true;
      return { return: agent.fileSystems };
    case 'guest-fsfreeze-thaw': {
      const thawed = agent.frozen ? agent.fileSystems : 0;
      agent.frozen = false;
      return { return: thawed };
    }
    case 'guest-fsfreeze-status':
      return { return: agent.frozen ? 'frozen' : 'thawed' };
    case 'guest-info':
      return { return: { version: '7.2', supported_commands: [{ name: 'guest-ping', enabled: true }] } };
    case 'guest-get-fsinfo':
      return { return: [{ name: 'vda', mountpoint: '/mnt', type: 'ext4', 'used-bytes': 1, 'total-bytes': 2 }] };
    case 'guest-exec':
      return agent.frozen ? { error: { class: 'CommandNotFound', desc: 'disabled' } } : { return: { pid: 42 } };
    case 'guest-exec-status': {
      const status = agent.execStatuses.shift();
      if (status === undefined) return { error: { class: 'GenericError', desc: "Invalid parameter 'pid'" } };
      if (status !== 'cut') return { return: status };
      agent.dropClient();
      return null;
    }
    default:
      return { error: { class: 'CommandNotFound', desc: `unknown command ${execute}` } };
  }
}
