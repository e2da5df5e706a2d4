/**
 * Temporal's remote codec protocol, for its UI and CLI: POST `/encode` and `/decode`, payloads as JSON of protobuf. On the
 * loopback, for programs of this user and root only: those who could read the keys themselves. Of browsers, for pages of the UI.
 */
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type OutgoingHttpHeaders, type Server } from 'node:http';
import type { Socket } from 'node:net';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { Log } from '../../schema/domain/seams.ts';
import type { Codec, Payload } from './payload-codec.ts';
import { bodyOf } from '../../engines/security/request-body.ts';

export type CodecServerOptions = {
  codec: Codec;
  /** Of 127.0.0.1. */
  port: number;
  /** Of pages that may ask, like `http://127.0.0.1:8233`. */
  origins: readonly string[];
  log: Log;
};
export type CodecServer = { close(): Promise<void> };

const LOOPBACK = '127.0.0.1';
const MOST_CONNECTIONS = 64;
/** Temporal takes payloads of 2 MiB; the UI asks for those of one event, or of a page of them. */
const MOST_BODY_BYTES = 16 * 1024 * 1024;
const REQUEST_MS = 10_000;
const PREFLIGHT_SECONDS = '600';

/**
 * Where the embedded stack says (`TIDEMARK_CODEC_URL`), for pages of its UI (`TIDEMARK_UI_URL`). Null: payloads are not
 * encrypted, nothing is said, or the port is taken, which is no reason for the worker not to work.
 */
export async function serveCodec(
  codec: Codec | null,
  environment: NodeJS.ProcessEnv,
  log: Log,
): Promise<CodecServer | null> {
  const { TIDEMARK_CODEC_URL: url, TIDEMARK_UI_URL: uiUrl } = environment;
  if (codec === null || !url || !uiUrl) return null;
  const [port, uiPort] = [new URL(url).port, new URL(uiUrl).port];
  const origins = [LOOPBACK, 'localhost'].map((host) => `http://${host}:${uiPort}`);
  try {
    return await startCodecServer({ codec, port: Number(port), origins, log });
  } catch (error) {
    log.error("Temporal's UI cannot show payloads", { error: messageOf(error) });
    return null;
  }
}

/** UNREACHABLE: the port cannot be listened on. */
export async function startCodecServer(options: CodecServerOptions): Promise<CodecServer> {
  const server = createServer({ requestTimeout: REQUEST_MS }, (request, response) => {
    void answer(options, request).then(({ status, headers, body }) => {
      response.writeHead(status, headers);
      response.end(body);
    });
  });
  server.maxConnections = MOST_CONNECTIONS;
  await listening(server, options.port);
  return {
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

const listening = (server: Server, port: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const refuse = (error: Error): void => {
      const message = `cannot listen on ${LOOPBACK}:${port}: ${error.message}`;
      reject(new TidemarkError('UNREACHABLE', message, { host: LOOPBACK, port }, error));
    };
    server.once('error', refuse);
    server.listen(port, LOOPBACK, resolve);
  });

type Answer = { status: number; headers: OutgoingHttpHeaders; body: string };

async function answer(options: CodecServerOptions, request: IncomingMessage): Promise<Answer> {
  const { origin } = request.headers;
  const headers: OutgoingHttpHeaders = { 'content-type': 'text/plain' };
  try {
    // A page that was led here by a name of its own (DNS rebinding) is told by its origin as well.
    if (origin !== undefined && !options.origins.includes(origin)) return refused(options, request, `origin ${origin}`);
    if (origin !== undefined) Object.assign(headers, allowances(origin, request));
    if (request.method === 'OPTIONS') return { status: 204, headers, body: '' };
    const uid = await uidOf(request.socket);
    if (uid !== 0 && uid !== process.getuid?.()) return refused(options, request, `user ${uid ?? 'unknown'}`);
    const work = workOf(options.codec, request);
    if (work === null) return { status: 404, headers, body: 'POST /encode or /decode' };
    const payloads = await work(payloadsIn(await bodyOf(request, MOST_BODY_BYTES)));
    const body = JSON.stringify({ payloads: payloads.map(toJson) });
    return { status: 200, headers: { ...headers, 'content-type': 'application/json' }, body };
  } catch (error) {
    return { status: error instanceof TidemarkError ? 400 : 500, headers, body: messageOf(error) };
  }
}

function refused({ log }: CodecServerOptions, { url }: IncomingMessage, who: string): Answer {
  log.warn('payloads are not decoded for whom they are not for', { who, path: url });
  return { status: 403, headers: { 'content-type': 'text/plain' }, body: `not for ${who}` };
}

/** What a browser has to be told before it lets the page ask, and have the answer. */
const allowances = (origin: string, { headers }: IncomingMessage): OutgoingHttpHeaders => ({
  'access-control-allow-origin': origin,
  'access-control-allow-credentials': 'true',
  'access-control-allow-methods': 'POST, OPTIONS',
  'access-control-allow-headers': headers['access-control-request-headers'] ?? 'content-type, x-namespace',
  'access-control-max-age': PREFLIGHT_SECONDS,
  vary: 'Origin, Access-Control-Request-Headers',
});

/** The protocol looks at the last part of the path alone. */
function workOf(codec: Codec, { method, url }: IncomingMessage): Codec['decode'] | null {
  const verb = new URL(url ?? '/', 'http://localhost').pathname.split('/').at(-1);
  if (method !== 'POST') return null;
  if (verb === 'decode') return (payloads) => codec.decode(payloads);
  return verb === 'encode' ? (payloads) => codec.encode(payloads) : null;
}

/** In the system's table of sockets: 127.0.0.1 and the port, also as an IPv6 address. */
const loopbackRow = (port: number | undefined): string =>
  `0100007F:${(port ?? 0).toString(16).toUpperCase().padStart(4, '0')}`;
const ESTABLISHED = '01';

/**
 * Whose process is at the other end of a connection over the loopback: the system keeps it in the table of its sockets.
 * Both ends and the state count: others may have the same port, to other places or at the end of a connection, which the
 * table gives to root.
 */
async function uidOf({ remotePort, localPort }: Socket): Promise<number | null> {
  const [from, to] = [loopbackRow(remotePort), loopbackRow(localPort)];
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
    const rows = (await readFile(table, 'utf8').catch(() => '')).split('\n');
    // Columns: number, local address, remote address, state, queues, timer, retransmits, uid.
    const row = rows
      .map((line) => line.trim().split(/\s+/))
      .find(([, local, remote, state]) => local?.endsWith(from) && remote?.endsWith(to) && state === ESTABLISHED);
    if (row) return Number(row[7]);
  }
  return null;
}

type PayloadText = { metadata?: Record<string, string> | null; data?: string | null };

const isText = (value: unknown): boolean => value === undefined || value === null || typeof value === 'string';
function isPayload(value: unknown): value is PayloadText {
  if (value === null || typeof value !== 'object') return false;
  const { metadata, data } = value as { metadata?: unknown; data?: unknown };
  return isText(data) && typeof (metadata ?? {}) === 'object' && Object.values(metadata ?? {}).every(isText);
}

/** BAD_REQUEST. */
function payloadsIn(text: string): Payload[] {
  let parsed: { payloads?: unknown } | null = null;
  try {
    parsed = JSON.parse(text) as { payloads?: unknown } | null;
  } catch {
    // Said below, with what is no payload.
  }
  const payloads = parsed?.payloads ?? (parsed ? [] : null);
  if (!Array.isArray(payloads) || !payloads.every(isPayload))
    throw new TidemarkError('BAD_REQUEST', 'expected { "payloads": [{ "metadata": { ... }, "data": base64 }] }');
  return payloads.map(({ metadata, data }) => ({
    metadata: Object.fromEntries(Object.entries(metadata ?? {}).map(([name, value]) => [name, bytesOf(value)])),
    data: bytesOf(data),
  }));
}

const bytesOf = (base64: string | null | undefined): Uint8Array => Buffer.from(base64 ?? '', 'base64');
const base64Of = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

const toJson = ({ metadata, data }: Payload): PayloadText => ({
  metadata: Object.fromEntries(Object.entries(metadata ?? {}).map(([name, value]) => [name, base64Of(value)])),
  data: base64Of(data ?? new Uint8Array()),
});
