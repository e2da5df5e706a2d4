/** Loopback ports of Temporal's server: chosen once, kept in the state folder, so that addresses survive restarts. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { TidemarkError } from '../../schema/domain/errors.ts';

export type StackPorts = { temporal: number; http: number; ui: number; metrics: number };
const names = ['temporal', 'http', 'ui', 'metrics'] as const;

/** Binds the port for a moment; 0 asks the system for a free one. Null when it is taken. */
export function probePort(port: number): Promise<number | null> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(null));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => {
      const { port: bound } = server.address() as net.AddressInfo;
      server.close(() => resolve(bound));
    });
  });
}

function readKept(file: string): Partial<StackPorts> {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Partial<StackPorts>;
  } catch {
    return {};
  }
}

async function choose(name: string, asked: number | undefined, kept: number | undefined): Promise<number> {
  if (asked !== undefined) {
    if ((await probePort(asked)) !== null) return asked;
    throw new TidemarkError('BAD_REQUEST', `port ${asked}, asked for as ${name} port, is in use`, {
      name,
      port: asked,
    });
  }
  // A kept port that somebody else took meanwhile gives way: a stack that starts beats one that is where it was.
  const free = (kept === undefined ? null : await probePort(kept)) ?? (await probePort(0));
  if (free === null) throw new TidemarkError('STORAGE_ERROR', `no free port for ${name}`);
  return free;
}

export async function choosePorts(file: string, asked: Partial<StackPorts>): Promise<StackPorts> {
  const kept = readKept(file);
  const ports = {} as StackPorts;
  for (const name of names) {
    do ports[name] = await choose(name, asked[name], kept[name]);
    while (asked[name] === undefined && isTaken(ports, name) && delete kept[name]);
  }
  writeFileSync(`${file}.new`, `${JSON.stringify(ports)}\n`);
  renameSync(`${file}.new`, file);
  return ports;
}

const isTaken = (ports: StackPorts, name: (typeof names)[number]): boolean =>
  names.some((other) => other !== name && ports[other] === ports[name]);
