/** Certificates, requests and revocation lists: the only file that knows the library that makes and reads them. */
// oxlint-disable-next-line import/no-unassigned-import -- the library below asks for it, by what it does when loaded
import 'reflect-metadata';
import { createHash, randomBytes, webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import { type MachineIdentity, namesOf } from '../../schema/domain/security.ts';

const keyAlgorithm = { name: 'ECDSA', namedCurve: 'P-256' };
const signing = { name: 'ECDSA', hash: 'SHA-256' };
const DAY_MS = 86_400_000;
/** Clocks of machines differ a little: a certificate of just now must not be one of the future. */
const BACKDATED_MS = 5 * 60_000;
const CRL_NUMBER = '2.5.29.20';

type Keys = Awaited<ReturnType<typeof makeKeys>>;
/** `key` and `certificate` are PEM. */
export type KeyPair = { key: string; certificate: string };
export type CertificateFacts = {
  serial: string;
  notBefore: number;
  notAfter: number;
  /** DNS names and URIs among the subject alternative names. */
  names: string[];
  /** SHA-256 of the whole, base64url. */
  fingerprint: string;
};
export type RevocationFacts = { number: number; issuedAt: number; serials: string[] };

const makeKeys = () => webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify']);

export function pem(label: string, bytes: ArrayBuffer | Uint8Array): string {
  const lines = Buffer.from(new Uint8Array(bytes))
    .toString('base64')
    .match(/.{1,64}/g)!;
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

const keyPem = async ({ privateKey }: Keys): Promise<string> =>
  pem('PRIVATE KEY', await webcrypto.subtle.exportKey('pkcs8', privateKey));

function readKey(text: string): Promise<webcrypto.CryptoKey> {
  const bytes = Buffer.from(text.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64');
  return webcrypto.subtle.importKey('pkcs8', bytes, keyAlgorithm, true, ['sign']);
}

/** CERTIFICATE_INVALID with the path of what is none. */
function reading<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new TidemarkError('CERTIFICATE_INVALID', `${what} cannot be read: ${messageOf(error)}`, { what }, error);
  }
}

/** An authority that signs machines' certificates, and no further authorities. */
export async function makeAuthority(name: string, validDays: number, now: number): Promise<KeyPair> {
  const keys = await makeKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [name] }],
    keys,
    signingAlgorithm: signing,
    notBefore: new Date(now - BACKDATED_MS),
    notAfter: new Date(now + validDays * DAY_MS),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { key: await keyPem(keys), certificate: pem('CERTIFICATE', certificate.rawData) };
}

/** A new key and a request that proves it: the key never leaves its machine. PEM. */
export async function makeRequest(name: string): Promise<{ key: string; request: string }> {
  const keys = await makeKeys();
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [name] }],
    keys,
    signingAlgorithm: signing,
  });
  return { key: await keyPem(keys), request: pem('CERTIFICATE REQUEST', request.rawData) };
}

/** Only the public key is taken of the request; who it is for, the authority says. BAD_REQUEST: not one, or not proven. */
export async function signRequest(
  authority: KeyPair,
  of: { request: string; identity: MachineIdentity; validDays: number; now: number },
): Promise<string> {
  const { identity, now } = of;
  const issuer = new x509.X509Certificate(authority.certificate);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: freshSerial(),
    subject: [{ CN: [identity.machineId] }],
    issuer: issuer.subjectName,
    publicKey: await provenKey(of.request),
    signingKey: await readKey(authority.key),
    signingAlgorithm: signing,
    notBefore: new Date(now - BACKDATED_MS),
    notAfter: new Date(Math.min(now + of.validDays * DAY_MS, issuer.notAfter.getTime())),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth, x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(namesOf(identity).map((value) => ({ type: 'url', value }))),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  });
  return pem('CERTIFICATE', certificate.rawData);
}

/** Positive, and without zeros in front: its hex digits are the same wherever it is written. */
function freshSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0]! & 0x7f) | 0x40;
  return bytes.toString('hex');
}

async function provenKey(text: string): Promise<x509.PublicKey> {
  try {
    const request = new x509.Pkcs10CertificateRequest(text);
    if (await request.verify()) return request.publicKey;
  } catch (error) {
    throw new TidemarkError('BAD_REQUEST', `it is no certificate request: ${messageOf(error)}`, {}, error);
  }
  throw new TidemarkError('BAD_REQUEST', 'the certificate request is not signed by its own key');
}

const certificateBlock = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/;

/** Of PEM the first certificate, of a Buffer DER. `what`: its path, for messages. CERTIFICATE_INVALID. */
export function readCertificate(text: string | Buffer, what: string): CertificateFacts {
  return reading(what, () => {
    const bytes = typeof text === 'string' ? (certificateBlock.exec(text)?.[0] ?? text) : Uint8Array.from(text);
    const certificate = new x509.X509Certificate(bytes);
    const names = certificate.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? [];
    return {
      serial: serialOf(certificate.serialNumber),
      notBefore: certificate.notBefore.getTime(),
      notAfter: certificate.notAfter.getTime(),
      names: names.filter(({ type }) => type === 'dns' || type === 'url').map(({ value }) => value),
      fingerprint: fingerprintOf(Buffer.from(certificate.rawData)),
    };
  });
}

export const fingerprintOf = (der: Buffer): string => createHash('sha256').update(der).digest('base64url');
const serialOf = (hex: string): string => hex.toLowerCase().replace(/^0+(?=.)/, '');

/** X.509 CRL, PEM. */
export async function makeRevocations(authority: KeyPair, of: RevocationFacts): Promise<string> {
  const issuer = new x509.X509Certificate(authority.certificate);
  const revocationDate = new Date(of.issuedAt);
  const list = await x509.X509CrlGenerator.create({
    issuer: issuer.subjectName,
    thisUpdate: revocationDate,
    // It does not grow old: a machine that cannot fetch a newer one goes on with it, and asks all the time.
    nextUpdate: issuer.notAfter,
    signingKey: await readKey(authority.key),
    signingAlgorithm: signing,
    entries: of.serials.map((serialNumber) => ({
      serialNumber,
      revocationDate,
      reason: x509.X509CrlReason.privilegeWithdrawn,
    })),
    extensions: [new x509.Extension(CRL_NUMBER, false, derInteger(of.number))],
  });
  return pem('X509 CRL', list.rawData);
}

function derInteger(value: number): Uint8Array<ArrayBuffer> {
  const hex = value.toString(16);
  const digits = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex');
  // One that begins with a set bit would be negative.
  const bytes = digits[0]! >= 0x80 ? [0, ...digits] : [...digits];
  return Uint8Array.from([2, bytes.length, ...bytes]);
}

/** CERTIFICATE_INVALID: it is none, or not the authority's. `number` 0 of a list without one. */
export async function readRevocations(text: string, authority: string, what: string): Promise<RevocationFacts> {
  const der = text.replace(/^[\s\S]*-----BEGIN [^-]+-----|-----END [\s\S]*$/g, '').replaceAll(/\s/g, '');
  const list = reading(what, () => new x509.X509Crl(der));
  const { publicKey } = reading('the authority', () => new x509.X509Certificate(authority));
  if (!(await list.verify({ publicKey })))
    throw new TidemarkError('CERTIFICATE_INVALID', `${what} is not signed by the site's authority`, { what });
  // RFC 5280 asks for it; of a list without, the library gives no entries, and revoked machines would be let in.
  if (!list.nextUpdate)
    throw new TidemarkError('CERTIFICATE_INVALID', `${what} does not say when the next one comes (nextUpdate)`, {
      what,
    });
  const number = list.extensions.find(({ type }) => type === CRL_NUMBER)?.value;
  return {
    number: number ? Number(`0x${Buffer.from(number).subarray(2).toString('hex')}`) : 0,
    issuedAt: list.thisUpdate.getTime(),
    serials: list.entries.map((entry) => serialOf(entry.serialNumber)),
  };
}
