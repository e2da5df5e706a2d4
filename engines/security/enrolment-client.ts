/** The machine's side: enrols once, then renews and looks for what is new with the certificate it has. */
import { request as httpsRequest } from 'node:https';
import { connect, type PeerCertificate, type SecureContextOptions } from 'node:tls';
import { isErrorCode, messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import { identityIn } from '../../schema/domain/security.ts';
import type { Enrolled } from './authority.ts';
import type { Loaded } from './credentials.ts';
import { ENROL_PATH, type ErrorAnswer, type MachineState, RENEW_PATH, STATE_PATH } from './enrolment-protocol.ts';
import type { SecurityLayout } from './security-layout.ts';
import { makePrivateFolder, readIfThere, writePrivate } from './private-files.ts';
import { fingerprintIn } from './tokens.ts';
import { fingerprintOf, makeRequest, pem, readCertificate } from './x509.ts';

/** How long the other end may say nothing, and how long all of it may take. */
const ANSWER_MS = 15_000;
const WHOLE_MS = 60_000;
const MOST_ANSWER_BYTES = 64 * 1024 * 1024;

/** `url`: https, of the control worker's listener. */
export type Enrolment = { url: string };

/** BAD_REQUEST: not a URL of the form https://host:port. */
export function parseSiteUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url?.protocol === 'https:' && url.hostname !== '' && url.pathname === '/') return url;
  throw new TidemarkError('BAD_REQUEST', `${JSON.stringify(text)} is no URL like https://backup-1.example.org:7944`);
}

/**
 * Fetches a certificate with a token and stores it. `fingerprint`: of the authority, where it was told apart from the
 * token. ENROLL_REFUSED, CERTIFICATE_INVALID (clocks), UNREACHABLE, BAD_REQUEST.
 */
export async function enrolMachine(of: {
  layout: SecurityLayout;
  url: URL;
  token: string;
  fingerprint: string | null;
}): Promise<Enrolled & { notAfter: number }> {
  const { layout, url, token, fingerprint } = of;
  const expected = fingerprintIn(token);
  if (fingerprint !== null && fingerprint !== expected)
    throw refusedBecause(
      `the token is of the authority ${expected}, and ${fingerprint} was expected: ask for both anew`,
    );
  const authority = await authorityAt(url, expected);
  const { key, request } = await makeRequest('machine');
  const given = await ask<Enrolled>(url, ENROL_PATH, { ca: authority }, { token, request });
  await makePrivateFolder(layout.folder);
  await store(layout, key, given);
  await writePrivate(layout.enrolment, `${JSON.stringify({ url: url.origin } satisfies Enrolment)}\n`);
  return { ...given, notAfter: readCertificate(given.certificate, 'the new certificate').notAfter };
}

/** A new key each time. */
export async function renewMachine(layout: SecurityLayout, url: URL, own: Loaded): Promise<void> {
  const { key, request } = await makeRequest('machine');
  const given = await ask<Enrolled>(url, RENEW_PATH, contextOf(own), { request });
  await store(layout, key, given);
}

/** `limitMs`: for the whole answer. */
export const fetchState = (url: URL, own: Loaded, limitMs = WHOLE_MS): Promise<MachineState> =>
  ask<MachineState>(url, STATE_PATH, contextOf(own), null, limitMs);

/** Null: this machine did not enrol anywhere. */
export async function readEnrolment(layout: SecurityLayout): Promise<Enrolment | null> {
  const text = await readIfThere(layout.enrolment);
  return text === null ? null : (JSON.parse(text) as Enrolment);
}

const contextOf = ({ authority, certificate, key }: Loaded): SecureContextOptions => ({
  ca: authority,
  cert: certificate,
  key,
});
const refusedBecause = (message: string): TidemarkError => new TidemarkError('ENROLL_REFUSED', message);

async function store(layout: SecurityLayout, key: string, given: Enrolled): Promise<void> {
  await writePrivate(layout.authority, given.authority);
  await writePrivate(layout.revocations, given.revocations);
  await writePrivate(layout.certificate, `${key}${given.certificate}`);
}

/** The authority's certificate, as the server shows it: taken only when it has the fingerprint. Nothing is sent. */
function authorityAt(url: URL, fingerprint: string): Promise<string> {
  return new Promise((resolve, reject) => {
    // Checked by the fingerprint below; nothing secret is said on this connection.
    const socket = connect({ host: hostOf(url), port: portOf(url), minVersion: 'TLSv1.3', rejectUnauthorized: false });
    const unreachable = (why: string): TidemarkError =>
      new TidemarkError('UNREACHABLE', `${url.origin}: ${why}`, { url: url.origin });
    socket.setTimeout(ANSWER_MS, () => socket.destroy(unreachable('no answer')));
    const timer = setTimeout(() => socket.destroy(unreachable('no whole answer')), WHOLE_MS);
    socket.once('close', () => clearTimeout(timer));
    socket.once('error', (error) => reject(error instanceof TidemarkError ? error : unreachable(messageOf(error))));
    socket.once('secureConnect', () => {
      const found = chainOf(socket.getPeerCertificate(true)).find(({ raw }) => fingerprintOf(raw) === fingerprint);
      socket.end();
      if (found) return resolve(pem('CERTIFICATE', found.raw));
      reject(
        refusedBecause(
          `${url.origin} is not of the site that made the token: its authority has another fingerprint than ${fingerprint}`,
        ),
      );
    });
  });
}

type Detailed = PeerCertificate & { issuerCertificate?: Detailed };
function chainOf(first: Detailed): Detailed[] {
  const chain: Detailed[] = [];
  for (let at: Detailed | undefined = first; at?.raw && !chain.includes(at); at = at.issuerCertificate) chain.push(at);
  return chain;
}

const hostOf = (url: URL): string => url.hostname.replaceAll(/[[\]]/g, '');
const portOf = (url: URL): number => Number(url.port === '' ? 443 : url.port);

/** One question. The server has to be the site's machine with the role `control`, whatever name it is reached by. */
function ask<T>(
  url: URL,
  path: string,
  context: SecureContextOptions,
  body: object | null,
  limitMs = WHOLE_MS,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const request = httpsRequest(
      {
        ...context,
        host: hostOf(url),
        port: portOf(url),
        path,
        method: body === null ? 'GET' : 'POST',
        minVersion: 'TLSv1.3',
        timeout: ANSWER_MS,
        agent: false,
        checkServerIdentity: (_name, { raw }) => {
          const identity = identityIn(readCertificate(raw, url.origin).names);
          return identity?.roles.includes('control')
            ? undefined
            : refusedBecause(`${url.origin} is not the control worker of a site`);
        },
      },
      (response) => {
        const parts: Buffer[] = [];
        let length = 0;
        response.on('data', (part: Buffer) => {
          parts.push(part);
          length += part.length;
          if (length > MOST_ANSWER_BYTES) response.destroy(new Error('the answer is too long'));
        });
        response.on('error', (error) => reject(explained(error, url)));
        response.on('end', () => {
          try {
            resolve(answerIn(Buffer.concat(parts).toString(), response.statusCode) as T);
          } catch (error) {
            reject(error);
          }
        });
      },
    );
    request.on('timeout', () => request.destroy(new Error('no answer')));
    // One that sends a little now and then is never idle.
    const timer = setTimeout(() => request.destroy(new Error(`no whole answer within ${limitMs} ms`)), limitMs);
    request.once('close', () => clearTimeout(timer));
    request.on('error', (error) => reject(explained(error, url)));
    request.end(body === null ? undefined : JSON.stringify(body));
  });
}

function answerIn(text: string, status: number | undefined): object {
  const answer = JSON.parse(text) as Partial<ErrorAnswer>;
  if (status === 200) return answer;
  const { code = 'BUG', message = `answered ${status}` } = answer.error ?? {};
  throw new TidemarkError(isErrorCode(code) ? code : 'BUG', message);
}

function explained(error: Error, url: URL): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const { code } = error as NodeJS.ErrnoException;
  const isClock = code === 'CERT_NOT_YET_VALID' || code === 'CERT_HAS_EXPIRED';
  const clock = isClock ? `; the clock of this machine says ${new Date().toISOString()}` : '';
  return new TidemarkError(
    isClock ? 'CERTIFICATE_INVALID' : 'UNREACHABLE',
    `${url.origin}: ${error.message}${clock}`,
    { url: url.origin, code },
    error,
  );
}
