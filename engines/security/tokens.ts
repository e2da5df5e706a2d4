/** One-time enrolment tokens: `<id>.<secret>.<fingerprint of the authority>`. Kept: a file each, with the secret's hash. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { MachineId } from '../../schema/domain/ids.ts';
import type { MachineRole } from '../../schema/domain/security.ts';
import { readIfThere, syncFolder, writePrivate } from './private-files.ts';

/** Times: milliseconds since the epoch. */
export type Token = { machineId: MachineId; roles: MachineRole[]; expiresAt: number };
type Kept = Token & { hash: string };

/** Used and expired ones are kept so long, to tell one from the other. */
const KEPT_MS = 30 * 86_400_000;
const form = /^([\w-]{12})\.([\w-]{32})\.([\w-]{43})$/;
const hashOf = (secret: string): string => createHash('sha256').update(secret).digest('base64url');
const refused = (message: string): TidemarkError => new TidemarkError('ENROLL_REFUSED', message);

export async function createToken(folder: string, token: Token, fingerprint: string, now: number): Promise<string> {
  await removeOld(folder, now);
  const id = randomBytes(9).toString('base64url');
  const secret = randomBytes(24).toString('base64url');
  await writePrivate(path.join(folder, `${id}.json`), JSON.stringify({ ...token, hash: hashOf(secret) }));
  return `${id}.${secret}.${fingerprint}`;
}

/** The fingerprint of the authority in a token. ENROLL_REFUSED: it is none. */
export function fingerprintIn(token: string): string {
  const fingerprint = form.exec(token)?.[3];
  if (fingerprint) return fingerprint;
  throw refused('this is no enrolment token: it has three parts, with dots between them');
}

/** ENROLL_REFUSED: unknown, used or expired; whoever does not know the secret learns only that it is unknown. */
export async function checkToken(folder: string, text: string, now: number): Promise<Token & { use(): Promise<void> }> {
  const [, id, secret] = form.exec(text) ?? [];
  if (id === undefined || secret === undefined) throw refused('this is no enrolment token');
  const [fresh, used] = [path.join(folder, `${id}.json`), path.join(folder, `${id}.used`)];
  const open = await readIfThere(fresh);
  const kept = JSON.parse(open ?? (await readIfThere(used)) ?? 'null') as Kept | null;
  if (!kept || !timingSafeEqual(Buffer.from(hashOf(secret)), Buffer.from(kept.hash)))
    throw refused('the token is not known here: it was made for another site, or taken back');
  const { machineId, roles, expiresAt } = kept;
  if (open === null) throw refused(`the token of machine ${machineId} was used already`);
  if (now >= expiresAt)
    throw refused(`the token of machine ${machineId} expired at ${new Date(expiresAt).toISOString()}`);
  const use = async (): Promise<void> => {
    // Whoever renames it has used it: there is one such.
    await rename(fresh, used).catch(() => {
      throw refused(`the token of machine ${machineId} was used already`);
    });
    await syncFolder(folder);
  };
  return { machineId, roles, expiresAt, use };
}

/** Those that were not used yet. */
export async function removeTokensOf(folder: string, machineId: MachineId): Promise<void> {
  for (const [name, token] of await tokensIn(folder))
    if (token.machineId === machineId && name.endsWith('.json')) await rm(path.join(folder, name), { force: true });
}

async function tokensIn(folder: string): Promise<[string, Kept][]> {
  const names = (await readdir(folder)).filter((name) => /\.(?:json|used)$/.test(name));
  const texts = await Promise.all(names.map((name) => readIfThere(path.join(folder, name))));
  return names.flatMap((name, at) => (texts[at] ? [[name, JSON.parse(texts[at]) as Kept] as [string, Kept]] : []));
}

async function removeOld(folder: string, now: number): Promise<void> {
  for (const [name, { expiresAt }] of await tokensIn(folder))
    if (expiresAt + KEPT_MS < now) await rm(path.join(folder, name), { force: true });
}
