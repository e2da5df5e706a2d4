/**
 * Loopback ports of Temporal's server and of the codec of its payloads: chosen once, kept in the state folder, so that
 * addresses survive restarts.
 */
import { randomInt } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { TidemarkError } from '../../schema/domain/errors.ts';

export type StackPorts = { temporal: number; http: number; ui: number; metrics: number; codec: number };
const names = ['temporal', 'http', 'ui', 'metrics', 'codec'] as const;

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

const FIRST_PORT = 20_000;
const TRIES = 64;

/**
 * The system gives any port of its own range to whoever connects to somewhere, also between our look at it and the
 * server's start, and for as long as that connection lives: free ports are taken from below that range, or else above.
 */
export function serverPorts(range: string): { from: number; to: number } | null {
  const [low, high] = range.trim().split(/\s+/).map(Number);
  if (low === undefined || high === undefined || !(low <= high)) return null;
  if (low - FIRST_PORT >= TRIES) return { from: FIRST_PORT, to: low };
  return 65_536 - high > TRIES ? { from: high + 1, to: 65_536 } : null;
}

function readServerPorts(): { from: number; to: number } | null {
  try {
    return serverPorts(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8'));
  } catch {
    return null;
  }
}

/** Null: none was found in many tries. */
export async function findFreePort(taken: ReadonlySet<number> = new Set()): Promise<number | null> {
  const ports = readServerPorts();
  for (let tries = 0; tries < TRIES; tries++) {
    const port = await probePort(ports === null ? 0 : randomInt(ports.from, ports.to));
    if (port !== null && !taken.has(port)) return port;
  }
  return null;
}

/** Those the stack had; none where the file is not there, or is not what we write. */
export function readKeptPorts(file: string): Partial<StackPorts> {
  try {
    const kept = JSON.parse(readFileSync(file, 'utf8')) as Partial<Record<string, unknown>> | null;
    const isPort = (value: unknown): boolean => Number.isInteger(value) && Number(value) > 0 && Number(value) < 65_536;
    return Object.fromEntries(Object.entries(kept ?? {}).filter(([, value]) => isPort(value)));
  } catch {
    return {};
  }
}

/** BAD_REQUEST: it is in use, or asked for twice. */
async function takeAsked(name: string, port: number, taken: Set<number>): Promise<number> {
  if (!taken.has(port) && (await probePort(port)) !== null) return port;
  const message = `port ${port}, asked for as ${name} port, is in use`;
  throw new TidemarkError('BAD_REQUEST', message, { name, port });
}

/** A kept port that somebody else took meanwhile gives way: a stack that starts beats one that is where it was. */
async function takeFree(name: string, kept: number | undefined, taken: Set<number>): Promise<number> {
  if (kept !== undefined && !taken.has(kept) && (await probePort(kept)) !== null) return kept;
  const free = await findFreePort(taken);
  if (free === null) throw new TidemarkError('STORAGE_ERROR', `no free port for ${name}`);
  return free;
}

export async function choosePorts(file: string, asked: Partial<StackPorts>): Promise<StackPorts> {
  const kept = readKeptPorts(file);
  const ports: Partial<StackPorts> = {};
  const taken = new Set<number>();
  // Those asked for first: what is merely kept must not stand in their way.
  for (const name of names.toSorted((a, b) => Number(b in asked) - Number(a in asked))) {
    const wish = asked[name];
    ports[name] = wish === undefined ? await takeFree(name, kept[name], taken) : await takeAsked(name, wish, taken);
    taken.add(ports[name]);
  }
  writeFileSync(`${file}.new`, `${JSON.stringify(ports)}\n`);
  renameSync(`${file}.new`, file);
  return ports as StackPorts;
}
