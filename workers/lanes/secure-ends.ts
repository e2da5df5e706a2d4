/** TLS for lanes: certificates from files, read when the first connection to or from another machine needs them. */
import type { ClientEnd, ServerEnd } from '../../engines/mover/wire-session/secure-ends.ts';
import { checkGrant, type Grant } from '../../engines/security/grants.ts';
import type { SecureTransport } from '../../engines/security/secure-transport.ts';
import { diskKey, type MachineId } from '../../schema/domain/ids.ts';
import type { Peer, SecurityDescription } from '../../schema/domain/security.ts';
import type { Seams } from '../../schema/domain/seams.ts';
import { refuse } from '../../schema/wire/frame.ts';
import type { Hello } from '../../schema/wire/messages.ts';

/** Plain data for threads. */
export type LaneSecurity = { machineId: MachineId; security: SecurityDescription };
/** `grantKey`: what the repository signs its grants with. */
export type TargetLaneSecurity = LaneSecurity & { grantKey: string };

const NO_TOKEN = '0'.repeat(64);

/** Its libraries take a quarter of a second to load: only where they are needed. */
async function openTransport({ security }: LaneSecurity, seams: Seams): Promise<SecureTransport> {
  const { openCredentials } = await import('../../engines/security/credentials.ts');
  const { createSecureTransport } = await import('../../engines/security/secure-transport.ts');
  return createSecureTransport(await openCredentials(security, seams));
}

export function clientEnd(of: LaneSecurity, seams: Seams): ClientEnd {
  let opening: Promise<SecureTransport> | null = null;
  let transport: SecureTransport | null = null;
  return {
    machineId: of.machineId,
    connect: async (at, expected) => {
      transport = await (opening ??= openTransport(of, seams));
      return transport.connect(at, expected);
    },
    explain: (error, at) => transport?.explain(error, at) ?? null,
    onUnanswered: ({ host, port }, error) =>
      seams.log.warn('a repository does not answer at one of its addresses', {
        address: `${host}:${port}`,
        error: error.message,
      }),
  };
}

export async function serverEnd(of: TargetLaneSecurity, seams: Seams): Promise<ServerEnd> {
  const transport = await openTransport(of, seams);
  const { requirePeer } = await import('../../engines/security/secure-transport.ts');
  return {
    createServer: (handlers) => transport.createServer(handlers),
    isRevoked: (peer) => transport.isRevoked(peer),
    onChange: (listener) => transport.onChange(listener),
    authorize: (peer, message) => {
      if (message.type !== 'hello') throw refuse('type', message.type, 'HELLO');
      requirePeer(peer, { role: 'proxy' });
      // A rehearsal touches no disk.
      if (message.purpose !== 'rehearsal')
        checkGrant(of.grantKey, grantFor(peer, message), message.token ?? NO_TOKEN, seams.clock.now());
    },
  };
}

/** A restore may read any disk of its restore point. */
function grantFor({ machineId }: Peer, { purpose, restorePointId, run, diskKey: disk, fence }: Hello): Grant {
  const of = { machineId, restorePointId, run };
  return purpose === 'backup'
    ? { purpose, ...of, diskKey: disk, fence }
    : { purpose: 'restore', ...of, diskKey: diskKey(''), fence };
}
