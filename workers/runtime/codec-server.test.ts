import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { findFreePort } from '../../engines/stack/ports.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { type CodecServer, serveCodec, startCodecServer } from './codec-server.ts';
import { createPayloadCodec, parsePayloadKeys } from './payload-codec.ts';

const codec = createPayloadCodec(parsePayloadKeys(`k1 ${'11'.repeat(32)}`, 'test'));
const ui = 'http://127.0.0.1:8233';
const base64 = (text: string): string => Buffer.from(text).toString('base64');
const plain = { metadata: { encoding: base64('json/plain') }, data: base64('"web-server"') };
let server: CodecServer;
let url: string;

beforeEach(async () => {
  const port = (await findFreePort())!;
  url = `http://127.0.0.1:${port}`;
  server = await startCodecServer({ codec, port, origins: [ui], log: testSeams().log });
});
afterEach(() => server.close());

const ask = (path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`${url}${path}`, { method: 'POST', body: JSON.stringify(body), headers });

test('what was encoded over HTTP is hidden, and comes back as it was', async () => {
  const hidden = (await (await ask('/encode', { payloads: [plain] })).json()) as { payloads: (typeof plain)[] };
  expect(hidden.payloads[0]!.metadata.encoding).toBe(base64('binary/encrypted'));
  expect(Buffer.from(hidden.payloads[0]!.data, 'base64').includes('web-server')).toBe(false);
  // The last part of the path counts; what is not encrypted passes as it is.
  const decoded = await ask('/any/where/decode', { payloads: [...hidden.payloads, plain] });
  expect(await decoded.json()).toEqual({ payloads: [plain, plain] });
  expect(await (await ask('/decode', {})).json()).toEqual({ payloads: [] });
});

test('a browser may ask for pages of the UI, and of nobody else', async () => {
  const asked = {
    'access-control-request-method': 'POST',
    'access-control-request-headers': 'content-type,x-namespace',
  };
  const before = await fetch(`${url}/decode`, { method: 'OPTIONS', headers: { origin: ui, ...asked } });
  expect(before.status).toBe(204);
  expect(before.headers.get('access-control-allow-origin')).toBe(ui);
  expect(before.headers.get('access-control-allow-headers')).toBe('content-type,x-namespace');
  const own = await ask('/decode', { payloads: [plain] }, { origin: ui });
  expect([own.status, own.headers.get('access-control-allow-origin')]).toEqual([200, ui]);
  for (const origin of ['https://evil.example', 'null', 'http://127.0.0.1:8234', `${ui}.evil.example`]) {
    const other = await ask('/decode', { payloads: [plain] }, { origin });
    expect([other.status, other.headers.get('access-control-allow-origin')]).toEqual([403, null]);
    expect(await other.text()).not.toContain(plain.data);
    const preflight = await fetch(`${url}/decode`, { method: 'OPTIONS', headers: { origin, ...asked } });
    expect([preflight.status, preflight.headers.get('access-control-allow-origin')]).toEqual([403, null]);
  }
});

test.skipIf(process.getuid?.() !== 0)('a program of another user gets nothing, one of this user does', async () => {
  const status = async (uid: number): Promise<string> => {
    const script = `fetch('${url}/decode', { method: 'POST', body: '{}' }).then((a) => console.log(a.status))`;
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', `process.setuid(${uid}); ${script}`]);
    return stdout.trim();
  };
  expect([await status(0), await status(65_534)]).toEqual(['200', '403']);
});

test.skipIf(process.getuid?.() !== 0)('nobody passes for root by a port that root seems to have, too', async () => {
  // A connection that its own end closed first stays in the table for a minute, as root's; where it stands there varies.
  const script = `
    const { connect, createServer } = require('node:net');
    process.setuid(65534);
    const codec = new URL('${url}');
    const to = (port, localPort) => new Promise((resolve, reject) => {
      // With an address of its own it is bound so that the port may be had again.
      const from = { localAddress: '127.0.0.1', localPort };
      const socket = connect({ host: '127.0.0.1', port, ...from }, () => resolve(socket)).on('error', reject);
    });
    const closedFirst = () => new Promise((resolve) => {
      const own = createServer({ allowHalfOpen: false }, (socket) => socket.resume()).listen(0, '127.0.0.1', async () => {
        const socket = await to(own.address().port);
        const { localPort } = socket;
        socket.on('close', () => own.close(() => resolve(localPort))).resume().end();
      });
    });
    (async () => {
      for (let i = 0; i < 12; i += 1) {
        const socket = await to(Number(codec.port), await closedFirst());
        socket.write('POST /decode HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\ncontent-length: 2\\r\\n\\r\\n{}');
        let answer = '';
        for await (const part of socket) answer += part;
        console.log(answer.split(' ')[1]);
      }
    })();`;
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', script]);
  expect(stdout.trim().split('\n')).toEqual(Array.from({ length: 12 }, () => '403'));
});

test('what is no request, and what no key fits, is said', async () => {
  for (const body of [{ payloads: 7 }, { payloads: [{ data: 7 }] }, { payloads: [{ metadata: { a: {} } }] }, null])
    expect((await ask('/decode', body)).status).toBe(400);
  expect((await fetch(`${url}/decode`, { method: 'POST', body: '{' })).status).toBe(400);
  expect((await fetch(`${url}/decode`)).status).toBe(404);
  expect((await ask('/keys', {})).status).toBe(404);
  const foreign = createPayloadCodec(parsePayloadKeys(`k2 ${'22'.repeat(32)}`, 'test'));
  const [{ metadata, data }] = (await foreign.encode([{ data: Buffer.from('x') }])) as [
    { metadata: Record<string, Uint8Array>; data: Uint8Array },
  ];
  const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
  const payload = {
    metadata: Object.fromEntries(Object.entries(metadata).map(([name, value]) => [name, text(value)])),
    data: text(data),
  };
  const unknown = await ask('/decode', { payloads: [payload] });
  expect([unknown.status, await unknown.text()]).toEqual([400, expect.stringContaining('encrypted with key k2')]);
});

test('it is served where the stack says, for its UI by both names; not without keys, nor where nothing is said', async () => {
  const { log } = testSeams();
  const at = `http://127.0.0.1:${await findFreePort()}`;
  const environment = { TIDEMARK_CODEC_URL: at, TIDEMARK_UI_URL: `${ui}/namespaces/tidemark/workflows` };
  expect(await serveCodec(null, environment, log)).toBeNull();
  expect(await serveCodec(codec, {}, log)).toBeNull();
  await expect(fetch(`${at}/decode`, { method: 'POST', body: '{}' })).rejects.toThrow('fetch failed');
  const served = (await serveCodec(codec, environment, log))!;
  for (const [origin, status] of [
    [ui, 200],
    ['http://localhost:8233', 200],
    ['http://localhost:80', 403],
  ] as const)
    expect((await fetch(`${at}/decode`, { method: 'POST', body: '{}', headers: { origin } })).status).toBe(status);
  // A worker whose port somebody else took works all the same.
  expect(await serveCodec(codec, environment, log)).toBeNull();
  await served.close();
});
