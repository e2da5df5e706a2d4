/** Certificates for the connection to Temporal: the machine's own, unless others are named. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { describeSecurity, securityLayout } from '../../engines/security/security-layout.ts';
import { stackLayout } from '../../engines/stack/layout.ts';
import type { TemporalTls } from '../../schema/domain/configuration.ts';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { SiteId } from '../../schema/domain/ids.ts';
import type { SecurityDescription } from '../../schema/domain/security.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import { loadMachine } from './config.ts';

const LOOK_MS = 2000;

/** As Temporal's libraries take it. */
export type TemporalTlsOptions = {
  serverRootCACertificate: Buffer;
  clientCertPair: { crt: Buffer; key: Buffer };
  serverNameOverride?: string;
};

/** Those of the site's own authority, or of the operator's PKI. */
async function ownFiles(configFolder: string): Promise<SecurityDescription['files']> {
  const machine = await loadMachine(stackLayout(path.dirname(configFolder)));
  return describeSecurity(machine?.site ?? ('' as SiteId), securityLayout(configFolder), machine?.security).files;
}

/** CERTIFICATE_INVALID: a file cannot be read. BAD_CONFIG: the machine's configuration. */
export async function readTemporalTls(tls: TemporalTls, configFolder: string): Promise<TemporalTlsOptions> {
  const own = await ownFiles(configFolder);
  const of = tls === true ? {} : tls;
  const read = (file: string): Promise<Buffer> =>
    readFile(file).catch((error: unknown) => {
      const text = `a certificate for Temporal cannot be read: ${messageOf(error)}`;
      throw new TidemarkError('CERTIFICATE_INVALID', text, { file }, error);
    });
  return {
    serverRootCACertificate: await read(of.authority ?? own.authority),
    clientCertPair: {
      crt: blockOf(await read(of.certificate ?? own.certificate), 'CERTIFICATE'),
      key: blockOf(await read(of.key ?? own.key), 'PRIVATE KEY'),
    },
    ...(of.serverName === undefined ? {} : { serverNameOverride: of.serverName }),
  };
}

/** Of a file that has both; one that has not is left as it is. */
function blockOf(pem: Buffer, label: string): Buffer {
  const blocks = pem.toString().match(new RegExp(`-----BEGIN ${label}-----[^-]+-----END ${label}-----\\n?`, 'g'));
  return blocks === null ? pem : Buffer.from(blocks.join(''));
}

/**
 * Resolves when the files hold others than at first, and such as can be used: a connection keeps those that it was made with, and
 * could not be made again with them once they have run out. Also when the signal aborts.
 */
export async function untilTemporalTlsChanges(
  tls: TemporalTls,
  configFolder: string,
  clock: Pick<Clock, 'sleep'>,
  signal: AbortSignal,
): Promise<void> {
  let first: string | null = null;
  while (!signal.aborted) {
    const found = await usable(tls, configFolder);
    first ??= found;
    if (found !== first && found !== null) return;
    await clock.sleep(LOOK_MS, signal).catch(() => undefined);
  }
}

/** All of it as one text; null while it is not there, half written, or of two pairs. */
async function usable(tls: TemporalTls, configFolder: string): Promise<string | null> {
  try {
    const { serverRootCACertificate, clientCertPair } = await readTemporalTls(tls, configFolder);
    const isAuthority = new X509Certificate(serverRootCACertificate).raw.length > 0;
    const isPair = new X509Certificate(clientCertPair.crt).checkPrivateKey(createPrivateKey(clientCertPair.key));
    const all = [serverRootCACertificate, clientCertPair.crt, clientCertPair.key];
    return isAuthority && isPair ? all.map(String).join('\n') : null;
  } catch {
    return null;
  }
}
