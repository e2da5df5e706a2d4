import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connect as tlsConnect, type TLSSocket } from 'node:tls';
import { expect, onTestFinished, test } from 'vitest';
import { machineId } from '../../schema/domain/ids.ts';
import { createTestSite } from '../../tests/fixtures/security.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { openCredentials } from './credentials.ts';
import { createSecureTransport, type TransportLimits } from './secure-transport.ts';

async function listening(limits: TransportLimits) {
  const folder = await mkdtemp(path.join(tmpdir(), 'td-half-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const site = await createTestSite(folder);
  const credentials = await openCredentials(site.own.security, testSeams());
  const transport = createSecureTransport(credentials, limits);
  const broken: string[] = [];
  const server = transport.createServer({
    onPeer: (socket, peer) => void socket.end(peer.machineId),
    onRefused: (socket) => void socket.resume(),
    onBroken: (why) => void broken.push(why),
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.close();
    credentials.close();
  });
  const { port } = server.address() as AddressInfo;
  /** Says nothing. Resolves when the server has it. */
  const open = async (localAddress = '127.0.0.1'): Promise<Socket> => {
    const accepted = once(server, 'connection');
    const socket = connect({ port, host: '127.0.0.1', localAddress }).on('error', () => undefined);
    await accepted;
    onTestFinished(() => void socket.destroy());
    return socket.resume();
  };
  return { site, transport, broken, port, open };
}

test('handshakes that are not gone on with are bounded in time and number, and keep nobody out', async () => {
  const { site, transport, broken, port, open } = await listening({ handshakeMs: 1000, mostStrangers: 2 });
  const expected = { machineId: site.own.machineId, role: 'repository' } as const;
  const closed = [await open(), await open(), await open()].map((socket) => once(socket, 'close'));
  await closed[0];
  expect(broken).toEqual(['too many connections were opened after it']);
  // Two are there and say nothing; the machine is the third, and so are the next.
  const good = transport.connect({ host: '127.0.0.1', port }, expected);
  const [bytes] = (await once(good, 'data')) as [Buffer];
  expect([String(bytes), (good as TLSSocket).getProtocol()]).toEqual(['m1', 'TLSv1.3']);
  await Promise.all(closed);
  expect(broken).toEqual([
    'too many connections were opened after it',
    'too many connections were opened after it',
    'TLS handshake timeout',
  ]);
  const wrong = transport.connect({ host: '127.0.0.1', port }, { ...expected, machineId: machineId('m9') });
  const [error] = (await once(wrong, 'error')) as [Error];
  expect(error).toMatchObject({ code: 'PEER_REFUSED', message: 'machine m1 answers where machine m9 should' });
});

test('who opens many connections makes way himself; one that shows no certificate counts among them', async () => {
  const { site, broken, port, open } = await listening({ handshakeMs: 60_000, mostStrangers: 3 });
  const slow = await open('127.0.0.2');
  const ca = await readFile(site.layout.authority);
  const anonymous = tlsConnect({ port, host: '127.0.0.1', ca, checkServerIdentity: () => undefined });
  anonymous.on('error', () => undefined).resume();
  await once(anonymous, 'secureConnect');
  const anonymousClosed = once(anonymous, 'close');
  const first = await open();
  const firstClosed = once(first, 'close');
  await open();
  await anonymousClosed;
  await open();
  await firstClosed;
  expect(broken).toEqual(Array.from({ length: 2 }, () => 'too many connections were opened after it'));
  expect(slow.destroyed).toBe(false);
});
