/** Certificates for the connection to Temporal: the machine's own, unless others are named. */
import { readFile } from 'node:fs/promises';
import { securityLayout } from '../../engines/security/security-layout.ts';
import type { TemporalTls } from '../../schema/domain/configuration.ts';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';

/** As Temporal's libraries take it. */
export type TemporalTlsOptions = {
  serverRootCACertificate: Buffer;
  clientCertPair: { crt: Buffer; key: Buffer };
  serverNameOverride?: string;
};

/** CERTIFICATE_INVALID: a file cannot be read. */
export async function readTemporalTls(tls: TemporalTls, configFolder: string): Promise<TemporalTlsOptions> {
  const own = securityLayout(configFolder);
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
