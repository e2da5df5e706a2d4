/** The control worker's part in the trust between machines: it lets them enrol, and renews its own certificate. */
import { type Authority, findAuthority, isDue } from '../../engines/security/authority.ts';
import { type Credentials, openCredentials } from '../../engines/security/credentials.ts';
import { type EnrolmentServer, startEnrolmentServer } from '../../engines/security/enrolment-server.ts';
import { readIfThere, writePrivate } from '../../engines/security/private-files.ts';
import { describeSecurity, securityLayout, type SecurityLayout } from '../../engines/security/security-layout.ts';
import { makeRequest, readCertificate } from '../../engines/security/x509.ts';
import type { StackLayout } from '../../engines/stack/layout.ts';
import type { Address } from '../../schema/domain/configuration.ts';
import { identityIn } from '../../schema/domain/security.ts';
import type { Seams } from '../../schema/domain/seams.ts';
import { loadMachine } from './config.ts';

/** Nothing listens to other machines unless it is configured. */
const LOOPBACK: Address = { host: '127.0.0.1', port: 0 };

export class EnrolmentKeeper {
  readonly #layout: StackLayout;
  readonly #seams: Seams;
  #server: EnrolmentServer | null = null;
  #credentials: Credentials | null = null;
  #listen = '';

  constructor(layout: StackLayout, seams: Seams) {
    this.#layout = layout;
    this.#seams = seams;
  }

  /** Makes the listener what the configuration says; there is none before `tidemark site init`. */
  async keep(): Promise<void> {
    const files = securityLayout(this.#layout.configFolder);
    const { clock, log } = this.#seams;
    const authority = await findAuthority(files, () => clock.now());
    if (authority === null) return;
    const listen = (await loadMachine(this.#layout))?.enrolment ?? LOOPBACK;
    await this.#renewOwn(files, authority);
    this.#credentials ??= await openCredentials(describeSecurity(authority.site, files, undefined), this.#seams);
    if (this.#server && this.#listen === JSON.stringify(listen)) return;
    await this.#server?.close();
    this.#server = null;
    const configurationOf = (machineId: string): Promise<string | null> =>
      readIfThere(this.#layout.otherMachineFile(machineId));
    this.#server = await startEnrolmentServer({
      listen,
      authority,
      credentials: this.#credentials,
      configurationOf,
      log,
    });
    this.#listen = JSON.stringify(listen);
    const { host, port } = this.#server.address;
    const url = `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
    await writePrivate(this.#layout.enrolmentFile, `${JSON.stringify({ url })}\n`);
    log.info('machines enrol here', { url });
  }

  /** Also one that has run out while nothing ran: the authority is here. */
  async #renewOwn(files: SecurityLayout, authority: Authority): Promise<void> {
    const text = (await readIfThere(files.certificate)) ?? '';
    const own = readCertificate(text, files.certificate);
    const identity = identityIn(own.names);
    if (identity === null || !isDue(own, this.#seams.clock.now())) return;
    const { key, request } = await makeRequest('machine');
    const { certificate } = await authority.renew({ ...identity, serial: own.serial }, request);
    await writePrivate(files.certificate, `${key}${certificate}`);
    this.#seams.log.info('the certificate of this machine is renewed');
    await this.#credentials?.reload();
  }

  async close(): Promise<void> {
    this.#credentials?.close();
    await this.#server?.close();
  }
}
