/**
 * Keeps a machine's certificate, revocation list and configuration new: a machine that enrolled asks the control worker
 * where it did. Every worker process does so; what they write is the same, and each file is replaced whole.
 */
import { isDue } from '../../engines/security/authority.ts';
import { type Credentials, openCredentials } from '../../engines/security/credentials.ts';
import { fetchState, readEnrolment, renewMachine } from '../../engines/security/enrolment-client.ts';
import { readIfThere, writePrivate } from '../../engines/security/private-files.ts';
import { describeSecurity, securityLayout, type SecurityLayout } from '../../engines/security/security-layout.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { identityIn, type SecurityDescription } from '../../schema/domain/security.ts';
import type { SiteId } from '../../schema/domain/ids.ts';
import { readCertificate, readRevocations } from '../../engines/security/x509.ts';
import type { StackLayout } from '../../engines/stack/layout.ts';
import type { Log, Seams } from '../../schema/domain/seams.ts';
import { periodically } from './periodically.ts';

/** A revocation is known everywhere so soon. */
const ASK_MS = 5000;

type Keeping = { url: URL; credentials: Credentials };

/** Until the signal aborts, on a machine that enrolled; one that did not, like that of the stack, has nothing to keep. */
export async function keepSecurity(layout: StackLayout, seams: Seams, signal: AbortSignal): Promise<void> {
  const files = securityLayout(layout.configFolder);
  let keeping: Keeping | null = null;
  const work = async (): Promise<void> => {
    // Here, and not before: what cannot be read at the start can be later.
    const { url, credentials } = (keeping ??= await openKeeping(files, seams));
    await credentials.reload();
    const own = credentials.current();
    const state = await fetchState(url, own);
    await keepRevocations(files, own.authority, state.revocations, seams.log);
    await keepConfiguration(layout, state.configuration);
    if (!isDue(own, seams.clock.now())) return;
    await renewMachine(files, url, own);
    seams.log.info('the certificate of this machine is renewed');
  };
  await periodically({ what: 'asking the control worker for what is new', intervalMs: ASK_MS, seams, signal }, work);
  (keeping as Keeping | null)?.credentials.close();
}

async function openKeeping(files: SecurityLayout, seams: Seams): Promise<Keeping> {
  const enrolment = await readEnrolment(files);
  if (enrolment === null) throw new TidemarkError('SECURITY_NOT_READY', 'this machine has not enrolled');
  return { url: new URL(enrolment.url), credentials: await openCredentials(await describeOwn(files), seams) };
}

/** Its site stands in the machine's own certificate. Without the list, which judges nobody here: a damaged one is fetched anew. */
async function describeOwn(files: SecurityLayout): Promise<SecurityDescription> {
  const text = (await readIfThere(files.certificate)) ?? '';
  const site = identityIn(readCertificate(text, files.certificate).names)?.site;
  const own = describeSecurity(site ?? ('' as SiteId), files, undefined);
  return { ...own, files: { ...own.files, revocations: null } };
}

/** An older one is not taken, whoever gives it; what is here and cannot be read is nothing to keep. */
async function keepRevocations(files: SecurityLayout, authority: string, text: string, log: Log): Promise<void> {
  const before = await readIfThere(files.revocations);
  if (before === text) return;
  const { number } = await readRevocations(text, authority, 'the revocation list');
  const known = await readRevocations(before ?? '', authority, files.revocations).catch(() => null);
  if (known === null || number > known.number) return await writePrivate(files.revocations, text);
  log.error('a revocation list that is not newer is not taken', { number, known: known.number });
}

async function keepConfiguration({ machineFile }: StackLayout, text: string | null): Promise<void> {
  if (text !== null && text !== (await readIfThere(machineFile))) await writePrivate(machineFile, text);
}
