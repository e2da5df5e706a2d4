/**
 * What a process or thread needs to prove who it is and to judge who others are: read from files, and read again when
 * they change. A change that cannot be read leaves what was read before, and is told in the log.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import { identityIn, type MachineIdentity, type Peer, type SecurityDescription } from '../../schema/domain/security.ts';
import type { Clock, Log } from '../../schema/domain/seams.ts';
import { readIfThere } from './private-files.ts';
import { readCertificate, readRevocations, type RevocationFacts } from './x509.ts';

/** A revoked machine's connections are ended so soon, and new certificates are used. */
const LOOK_MS = 2000;

/** PEM. Times: milliseconds since the epoch. */
export type Loaded = { authority: string; certificate: string; key: string; notBefore: number; notAfter: number };

export type Credentials = {
  /** SECURITY_NOT_READY or CERTIFICATE_INVALID: what is wrong with this machine's own. */
  current(): Loaded;
  /** Who a proven certificate is of. PEER_REFUSED: of another site, of nobody known, out of its time, or revoked. Else as `current`. */
  peerOf(certificate: { raw: Buffer }): Peer;
  isRevoked(peer: Peer): boolean;
  /** After each change that was read. */
  onChange(listener: () => void): void;
  /** Looks at the files now. */
  reload(): Promise<void>;
  close(): void;
};

export async function openCredentials(
  description: SecurityDescription,
  { clock, log }: { clock: Clock; log: Log },
): Promise<Credentials> {
  const credentials = new FileCredentials(description, clock, log);
  await credentials.reload();
  credentials.watch();
  return credentials;
}

class FileCredentials implements Credentials {
  readonly #description: SecurityDescription;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #listeners: (() => void)[] = [];
  #loaded: Loaded | null = null;
  #revocations: RevocationFacts = { number: 0, issuedAt: 0, serials: [] };
  #trouble: unknown = null;
  #seen = '';
  #reading: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | null = null;

  constructor(description: SecurityDescription, clock: Clock, log: Log) {
    this.#description = description;
    this.#clock = clock;
    this.#log = log;
  }

  current(): Loaded {
    if (!this.#loaded) throw this.#trouble;
    const { notBefore, notAfter } = this.#loaded;
    const now = this.#clock.now();
    if (now >= notBefore && now < notAfter) return this.#loaded;
    const { certificate } = this.#description.files;
    const text = `${certificate} is valid from ${iso(notBefore)} to ${iso(notAfter)}, and the clock of this machine says ${iso(now)}`;
    throw new TidemarkError('CERTIFICATE_INVALID', text, { certificate });
  }

  peerOf({ raw }: { raw: Buffer }): Peer {
    // Before the files were read once nobody can be judged: whom the list shuts out is not known.
    if (!this.#loaded) throw this.#trouble;
    const { names, serial, notBefore, notAfter } = readCertificate(raw, 'the certificate of the other end');
    const identity = this.#identityOf(names);
    const { site } = this.#description;
    const refuse = (why: string): never => {
      throw new TidemarkError('PEER_REFUSED', `the certificate of the other end ${why}`, { names, serial });
    };
    if (identity === null) return refuse(`names no machine: it has ${names.slice(0, 4).join(', ') || 'no names'}`);
    if (identity.site !== site) return refuse(`is of site ${identity.site}, and this is ${site}`);
    // A session of before that is resumed has no handshake that would look at it.
    const now = this.#clock.now();
    if (now < notBefore || now >= notAfter)
      return refuse(`is valid from ${iso(notBefore)} to ${iso(notAfter)}, and it is ${iso(now)} here`);
    const peer = { ...identity, serial };
    return this.isRevoked(peer) ? refuse(`was revoked: machine ${peer.machineId}, serial ${serial}`) : peer;
  }

  isRevoked({ serial }: Peer): boolean {
    return this.#revocations.serials.includes(serial);
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  reload(): Promise<void> {
    this.#reading = this.#reading
      .then(() => this.#look())
      .catch((error: unknown) => this.#log.error('certificates are not looked at', { error: messageOf(error) }));
    return this.#reading;
  }

  watch(): void {
    this.#timer = setInterval(() => void this.reload(), LOOK_MS);
    this.#timer.unref();
  }

  close(): void {
    if (this.#timer) clearInterval(this.#timer);
  }

  #identityOf(names: readonly string[]): MachineIdentity | null {
    const { machines, site } = this.#description;
    if (machines === null) return identityIn(names);
    const known = machines.filter(({ name }) => names.includes(name));
    return known.length === 1 ? { site, machineId: known[0]!.machineId, roles: known[0]!.roles } : null;
  }

  async #look(): Promise<void> {
    const seen = await marksOf(Object.values(this.#description.files).filter((file) => file !== null));
    if (seen === this.#seen) return;
    this.#seen = seen;
    try {
      await this.#read();
      this.#trouble = null;
    } catch (error) {
      // Read again at the next look, whether a file changes or not; told once.
      this.#seen = '';
      const isNew = messageOf(error) !== messageOf(this.#trouble);
      this.#trouble = error;
      const [message, facts] = [messageOf(error), { keptBefore: this.#loaded !== null }];
      if (isNew) this.#log.error('certificates cannot be read', { error: message, ...facts });
      return;
    }
    for (const listener of this.#listeners) this.#tell(listener);
  }

  /** One that throws keeps no other from hearing of it, and no later change from being read. */
  #tell(listener: () => void): void {
    try {
      listener();
    } catch (error) {
      this.#log.error('a change of certificates is not taken', { error: messageOf(error) });
    }
  }

  async #read(): Promise<void> {
    const { files } = this.#description;
    const [authority, certificate, key] = [
      await needed(files.authority),
      await needed(files.certificate),
      await needed(files.key),
    ];
    requireCertificates(authority, files.authority);
    const { notBefore, notAfter } = readCertificate(certificate, files.certificate);
    if (!fits(certificate, key))
      throw new TidemarkError('CERTIFICATE_INVALID', `${files.key} is not the key of ${files.certificate}`, {
        ...files,
      });
    const revocations = await this.#readRevocations(authority);
    if (revocations && revocations.number >= this.#revocations.number) this.#revocations = revocations;
    else if (revocations)
      this.#log.error('an older revocation list is not taken', { file: files.revocations, number: revocations.number });
    this.#loaded = { authority, certificate, key, notBefore, notAfter };
  }

  /** A list that cannot be read is no empty one: whom it would shut out is not known then. */
  async #readRevocations(authority: string): Promise<RevocationFacts | null> {
    const { files, machines } = this.#description;
    const file = files.revocations;
    if (file === null) return null;
    const text = await readIfThere(file);
    if (text !== null) return await readRevocations(text, authority, file);
    if (machines === null) return null;
    throw new TidemarkError('SECURITY_NOT_READY', `the revocation list ${file} is missing`, { file });
  }
}

const iso = (ms: number): string => new Date(ms).toISOString();

/** CERTIFICATE_INVALID. TLS takes every public authority where a file has none, and leaves out what it cannot read. */
function requireCertificates(text: string, file: string): void {
  const begin = '-----BEGIN CERTIFICATE-----';
  const parts = text.split(begin).slice(1);
  for (const part of parts.length === 0 ? [''] : parts) readCertificate(`${begin}${part}`, file);
}

function fits(certificate: string, key: string): boolean {
  try {
    return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key));
  } catch {
    return false;
  }
}

async function needed(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    const isAbsent = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new TidemarkError(
      isAbsent ? 'SECURITY_NOT_READY' : 'STORAGE_ERROR',
      `this machine has no certificate yet: ${messageOf(error)}`,
      { file },
      error,
    );
  }
}

/** Changes when any of the files does. */
async function marksOf(files: readonly string[]): Promise<string> {
  const marks = await Promise.all(
    files.map((file) =>
      stat(file).then(
        ({ ino, size, mtimeMs }) => `${ino} ${size} ${mtimeMs}`,
        () => 'absent',
      ),
    ),
  );
  return marks.join();
}
