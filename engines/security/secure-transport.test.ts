import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TLSSocket } from 'node:tls';
import { expect, onTestFinished, test } from 'vitest';
import { machineId } from '../../schema/domain/ids.ts';
import { createTestSite } from '../../tests/fixtures/security.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { openCredentials } from './credentials.ts';
import { createSecureTransport } from './secure-transport.ts';

test('handshakes that are not gone on with are bounded in time and number, and keep nobody out for long', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'td-half-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const site = await createTestSite(folder);
  const credentials = await openCredentials(site.own.security, testSeams());
  const transport = createSecureTransport(credentials, { handshakeMs: 1000, mostHalfOpen: 2 });
  const broken: string[] = [];
  const server = transport.createServer({
    onPeer: (socket, peer) => void socket.end(peer.machineId),
    onRefused: (socket) => void socket.destroy(),
    onBroken: (why) => void broken.push(why),
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.close();
    credentials.close();
  });
  const { port } = server.address() as AddressInfo;
  const half: Socket[] = [];
  for (let count = 0; count < 3; count += 1) {
    const socket = connect(port, '127.0.0.1').on('error', () => undefined);
    half.push(socket);
    await once(socket, 'connect');
  }
  await Promise.all(half.map((socket) => once(socket.resume(), 'close')));
  expect(broken[0]).toBe('too many connections are being opened at once');
  expect(broken.slice(1)).toEqual(['TLS handshake timeout', 'TLS handshake timeout']);
  const expected = { machineId: site.own.machineId, role: 'repository' } as const;
  const good = transport.connect({ host: '127.0.0.1', port }, expected);
  const [bytes] = (await once(good, 'data')) as [Buffer];
  expect([String(bytes), (good as TLSSocket).getProtocol()]).toEqual(['m1', 'TLSv1.3']);
  const wrong = transport.connect({ host: '127.0.0.1', port }, { ...expected, machineId: machineId('m9') });
  const [error] = (await once(wrong, 'error')) as [Error];
  expect(error).toMatchObject({ code: 'PEER_REFUSED', message: 'machine m1 answers where machine m9 should' });
});
