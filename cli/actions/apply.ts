/** `tidemark apply`: makes the installation what site.yaml says, or changes nothing. */
import { open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { configurationDigest } from '../../engines/stack/configuration-watch.ts';
import { makePrivateFolder, readIfThere, writePrivate } from '../../engines/security/private-files.ts';
import { securityLayout } from '../../engines/security/security-layout.ts';
import type { StackLayout } from '../../engines/stack/layout.ts';
import { isSupervisorRunning, readStackFile } from '../../engines/stack/stack-file.ts';
import { MAX_SITE_BYTES, parseSite } from '../../engines/site/parse-site.ts';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listLeases } from '../../schema/catalog/leases.ts';
import { listResources } from '../../schema/catalog/resources.ts';
import { countRestorePoints } from '../../schema/catalog/restore-points.ts';
import { listSessions, loadSession, type SessionWithRows } from '../../schema/catalog/sessions.ts';
import { applySite, loadSite } from '../../schema/catalog/site.ts';
import type { MachineConfig, RepositoryConfig, SiteChange, SiteConfig } from '../../schema/domain/configuration.ts';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import { diffSites } from '../../schema/domain/site-changes.ts';
import { withCatalog } from '../catalog-access.ts';
import { exitCodes } from '../exit-codes.ts';
import { machineNameOf } from '../machine-name.ts';
import { checkOtherMachines } from '../other-machines.ts';
import { printJson } from '../run-command.ts';
import { checkMachine } from '../site-checks.ts';
import { layoutOf } from '../stack-access.ts';

export type ApplyOptions = { state?: string; json?: boolean; file: string; dryRun?: boolean; yes?: boolean };

/** Longer than the supervisor gives the workers to end and to come up again. */
const APPLIED_LIMIT_MS = 100_000;
const POLL_MS = 100;

async function readSite(file: string): Promise<SiteConfig> {
  try {
    const { size } = await stat(file);
    if (size > MAX_SITE_BYTES) {
      const message = `${file} has ${size} bytes, expected at most ${MAX_SITE_BYTES}`;
      throw new TidemarkError('BAD_CONFIG', message, { file, sizeBytes: size });
    }
    return parseSite(await readFile(file, 'utf8'), path.basename(file), machineNameOf(hostname()));
  } catch (error) {
    if (error instanceof TidemarkError) throw error;
    throw new TidemarkError('BAD_REQUEST', `cannot read ${file}: ${messageOf(error)}`, { file }, error);
  }
}

type InUse = { isRemoved: boolean; warning: string };
const words = { removed: 'is removed', changed: 'changes', added: 'is added' } as const;

/** What of the changes running sessions use. A changed job is none: a session keeps the job it was started with. */
async function usedBySessions(db: CatalogDatabase, changes: readonly SiteChange[]): Promise<InUse[]> {
  const matters = changes.filter(
    ({ change, kind }) => change === 'removed' || (change === 'changed' && kind !== 'job'),
  );
  if (matters.length === 0) return [];
  const leases = await listLeases(db);
  const found: InUse[] = [];
  for (const { sessionId } of await listSessions(db, { open: true, limit: 1000 })) {
    const session = await loadSession(db, sessionId);
    if (session === null) continue;
    const own = leases.filter(({ workflowId }) => workflowId.startsWith(session.workflowId));
    const used = usedThings(
      session,
      own.map(({ kind, id }) => `${kind} ${id}`),
    );
    for (const { kind, id, change } of matters)
      if (used.has(`${kind} ${id}`))
        found.push({
          isRemoved: change === 'removed',
          warning: `${kind} ${id} ${words[change]}, but session ${sessionId} uses it${lasting(kind, change)}`,
        });
  }
  return found;
}

/** A host's own workers end what sessions hold on it, and they go with it. */
const lasting = (kind: SiteChange['kind'], change: SiteChange['change']): string =>
  kind === 'host' && change === 'removed' ? ': the checkpoints it holds there stay until the host is back' : '';

function usedThings(session: SessionWithRows, leases: readonly string[]): Set<string> {
  const open = session.vms.filter((vm) => vm.result === 'None');
  return new Set([
    ...leases,
    `job ${session.jobId}`,
    ...open.flatMap((vm) => [`vm ${vm.hostId}/${vm.name}`, `host ${vm.hostId}`]),
  ]);
}

/** Of repositories and jobs that are removed: what stays, and where. */
async function leftBehind(db: CatalogDatabase, changes: readonly SiteChange[]): Promise<string[]> {
  const removed = changes.filter(
    ({ change, kind }) => change === 'removed' && (kind === 'repository' || kind === 'job'),
  );
  if (removed.length === 0) return [];
  const rows = await listResources(db, 'repository');
  const folders = new Map(rows.map(({ id, config }) => [id, (config as RepositoryConfig).folder]));
  const counts = await countRestorePoints(db);
  return removed.flatMap(({ kind, id }) => {
    const own = new Map<string, number>();
    for (const { jobId, repositoryId, count } of counts)
      if (id === (kind === 'job' ? jobId : repositoryId)) own.set(repositoryId, (own.get(repositoryId) ?? 0) + count);
    return [...own].map(([repository, count]) => {
      const points = count === 1 ? 'its 1 restore point stays' : `its ${count} restore points stay`;
      const folder = folders.get(repository);
      const where = folder === undefined ? `repository ${repository}` : `the folder ${folder}`;
      return `${kind} ${id} is removed: ${points} in ${where}`;
    });
  });
}

const signs = { added: '+', changed: '~', removed: '-' } as const;

function showChanges(changes: readonly SiteChange[]): void {
  if (changes.length === 0) console.log('nothing changes');
  for (const { change, kind, id } of changes) console.log(`${signs[change]} ${kind} ${id}`);
}

async function isWanted(): Promise<boolean> {
  const lines = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return /^y(?:es)?$/i.test((await lines.question('Apply it all the same? [y/N] ')).trim());
  } finally {
    lines.close();
  }
}

/** Written beside the file first; `commit` makes it the machine's, whole or not at all. Null: it is so already. */
async function prepareMachineFile(
  layout: StackLayout,
  machine: MachineConfig,
): Promise<{ commit(): Promise<void>; discard(): Promise<void> } | null> {
  const text = `${JSON.stringify(machine, null, 2)}\n`;
  const before = await readFile(layout.machineFile, 'utf8').catch(() => null);
  if (before === text) return null;
  const next = `${layout.machineFile}.new`;
  await writeSynced(next, text).catch((error: unknown) => {
    throw new TidemarkError('STORAGE_ERROR', `cannot write ${next}: ${messageOf(error)}`, { file: next }, error);
  });
  return {
    async commit() {
      await rename(next, layout.machineFile);
      const folder = await open(layout.configFolder, 'r');
      await folder.sync();
      await folder.close();
    },
    discard: () => rm(next, { force: true }),
  };
}

/** Anew, so that no earlier file's rights stay. */
async function writeSynced(file: string, text: string): Promise<void> {
  await rm(file, { force: true });
  const handle = await open(file, 'wx', 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** File first, catalog second, and the file's name only when the catalog has it: a failure on the way changes nothing. */
async function store(db: CatalogDatabase, layout: StackLayout, site: SiteConfig): Promise<void> {
  const [machine, ...others] = site.machines as [MachineConfig, ...MachineConfig[]];
  await requireCertificates(layout, machine, others);
  const file = await prepareMachineFile(layout, machine);
  try {
    await applySite(db, site);
  } catch (error) {
    await file?.discard();
    throw error;
  }
  await storeOthers(layout, others);
  await file?.commit();
}

/** They fetch it; what is no longer in the site is let go. */
async function storeOthers(layout: StackLayout, others: readonly MachineConfig[]): Promise<void> {
  const there = await readdir(layout.otherMachinesFolder).catch((): string[] => []);
  if (others.length > 0) await makePrivateFolder(layout.otherMachinesFolder);
  for (const machine of others)
    await writePrivate(layout.otherMachineFile(machine.machineId), `${JSON.stringify(machine, null, 2)}\n`);
  const wanted = new Set(others.map(({ machineId }) => path.basename(layout.otherMachineFile(machineId))));
  for (const name of there)
    if (!wanted.has(name)) await rm(path.join(layout.otherMachinesFolder, name), { force: true });
}

/** Machines speak to each other with certificates or not at all. */
async function requireCertificates(
  layout: StackLayout,
  machine: MachineConfig,
  others: readonly MachineConfig[],
): Promise<void> {
  const listening = machine.repositories.find(({ listen }) => listen !== undefined);
  if (machine.security !== undefined || (listening === undefined && others.length === 0)) return;
  const { siteFile, folder } = securityLayout(layout.configFolder);
  const known = (await readIfThere(siteFile))?.trim();
  const why = listening ? `repository ${listening.repositoryId} listens` : `the site has ${others.length + 1} machines`;
  if (known === undefined)
    throw new TidemarkError('SECURITY_NOT_READY', `${why}, and there is no certificate authority in ${folder}`, {
      folder,
    });
  if (known !== machine.site)
    throw new TidemarkError(
      'BAD_CONFIG',
      `the authority in ${folder} is of site ${known}, and this is ${machine.site}`,
    );
}

/** Until the processes that read the configuration run with it. Returns warnings about those that did not come up. */
async function untilApplied(layout: StackLayout): Promise<string[]> {
  const digest = await configurationDigest(layout.machineFile);
  const deadline = performance.now() + APPLIED_LIMIT_MS;
  for (;;) {
    const stack = readStackFile(layout.stackFile);
    if (stack === null || !isSupervisorRunning(stack))
      return ['the stack ended meanwhile; it starts with the new site'];
    const isCurrent = stack.configuration.state === 'applied' && stack.configuration.digest === digest;
    const unready = stack.children.filter(({ state }) => state !== 'ready');
    if (isCurrent && unready.length === 0) return [];
    const isLate = performance.now() > deadline;
    if (isLate && !isCurrent) return ['the stack has not taken the new configuration yet; see `tidemark status`'];
    if (isLate || (isCurrent && unready.some(({ restarts }) => restarts > 0)))
      return unready.map(
        ({ name, state, lastExit }) => `${name} is ${state} (${lastExit ?? 'no answer'}); see ${layout.logFile(name)}`,
      );
    await sleep(POLL_MS);
  }
}

type Outcome = { applied: boolean; changes: SiteChange[]; warnings: string[] };

function show(options: ApplyOptions, outcome: Outcome): void {
  if (options.json) printJson({ file: options.file, dryRun: options.dryRun === true, ...outcome });
}

/** What is made on hypervisors carries the site's name: under another one nobody would ever remove it. */
function refuseOtherSite(known: SiteConfig | null, { site }: SiteConfig): void {
  if (known === null || known.site === site) return;
  const message = `site ${known.site} was applied here, and the file is of site ${site}: the name of a site cannot change, since what is made on hypervisors is found by it. Write \`site: ${known.site}\`, or give another site a state folder of its own (--state)`;
  throw new TidemarkError('BAD_CONFIG', message, { applied: known.site, site });
}

/** BAD_CONFIG with all mistakes; STACK_NOT_RUNNING. 0 when it is applied, 3 when a worker did not come up with it. */
export async function apply(options: ApplyOptions): Promise<number> {
  const site = await readSite(options.file);
  const warn = (warnings: string[]): void => warnings.forEach((warning) => console.error(`warning: ${warning}`));
  return withCatalog(options.state, async (db) => {
    const layout = layoutOf(options.state);
    const known = await loadSite(db);
    refuseOtherSite(known, site);
    const changes = diffSites(known, site);
    if (!options.json) showChanges(changes);
    const used = await usedBySessions(db, changes);
    const before = [...used.map(({ warning }) => warning), ...(await leftBehind(db, changes))];
    warn(before);
    if (options.dryRun) {
      show(options, { applied: false, changes, warnings: before });
      return exitCodes.ok;
    }
    const isAsked = used.some(({ isRemoved }) => isRemoved) && !options.yes && !options.json && process.stdin.isTTY;
    if (isAsked && !(await isWanted())) {
      console.log('nothing was changed');
      return exitCodes.failed;
    }
    await store(db, layout, site);
    const unready = await untilApplied(layout);
    const absent = [...(await checkMachine(site.machines[0]!)), ...checkOtherMachines(site)];
    warn([...unready, ...absent]);
    show(options, { applied: true, changes, warnings: [...before, ...unready, ...absent] });
    if (!options.json) console.log('applied');
    return unready.length === 0 ? exitCodes.ok : exitCodes.warning;
  });
}
