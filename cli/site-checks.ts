/**
 * Whether what a site names is there: cheap looks at this machine's files and sockets, never at what a socket would
 * answer (a QMP monitor has room for one client). What is found is a warning: a VM may be off, a folder not mounted yet.
 */
import { access, constants, readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { formatFoundIn, wayOutOf } from '../engines/hypervisors/image/known-formats.ts';
import type {
  EncryptionConfig,
  HostConfig,
  MachineConfig,
  QemuVmConfig,
  RepositoryConfig,
} from '../schema/domain/configuration.ts';
import { messageOf } from '../schema/domain/errors.ts';
import { isEncrypted, parseRepositoryFile } from '../schema/repository/documents.ts';
import { isOpenToOthers } from '../workers/runtime/repository-secret.ts';

type VmDisk = NonNullable<QemuVmConfig['disks']>[number];

/** Paths somebody on this machine listens on; null where the system does not tell. */
export async function listeningSockets(): Promise<Set<string> | null> {
  const table = await readFile('/proc/net/unix', 'utf8').catch(() => null);
  if (table === null) return null;
  // Num RefCount Protocol Flags Type St Inode Path; flag 0x10000: it accepts connections.
  const lines = [...table.matchAll(/^\S+ \S+ \S+ (\S+) \S+ \S+ +\d+ (\/.*)$/gm)];
  return new Set(
    lines.filter(([, flags]) => (Number.parseInt(flags!, 16) & 0x1_0000) !== 0).map(([, , file]) => file!),
  );
}

async function checkSocket(what: string, file: string, listening: Set<string> | null): Promise<string[]> {
  const found = await stat(file).catch(() => null);
  if (found === null) return [`${what}: there is no socket ${file}`];
  if (!found.isSocket()) return [`${what}: ${file} is not a socket`];
  return listening === null || listening.has(file) ? [] : [`${what}: nobody listens on ${file}`];
}

/** What the system says to it, in words with the path in them. */
function refusal(kind: 'file' | 'folder', file: string, error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return `there is no ${kind} ${file}`;
  return code === 'EACCES' ? `${file} may not be used by this user` : messageOf(error);
}

async function checkReadable(what: string, file: string): Promise<string[]> {
  try {
    await access(file, constants.R_OK);
    const found = await stat(file);
    return found.isFile() || found.isBlockDevice() ? [] : [`${what}: ${file} is not a file`];
  } catch (error) {
    return [`${what}: ${refusal('file', file, error)}`];
  }
}

/** What is called raw is looked at: a backup refuses an image of another format. */
async function checkDisk(vmName: string, { diskKey, file, format }: VmDisk): Promise<string[]> {
  const what = `VM ${vmName}, disk ${diskKey}`;
  const problems = await checkReadable(what, file);
  if (problems.length > 0 || format !== 'raw') return problems;
  const found = await formatFoundIn(file).catch(() => null);
  if (found === null) return [];
  return [
    `${what}: ${file} is called raw and begins like a ${found} image, so it is not backed up; ${wayOutOf(found)}`,
  ];
}

async function checkFolder(what: string, folder: string, isMade: boolean): Promise<string[]> {
  try {
    if (!(await stat(folder)).isDirectory()) return [`${what}: ${folder} is not a folder`];
    await access(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    return [];
  } catch (error) {
    const isAbsent = (error as NodeJS.ErrnoException).code === 'ENOENT';
    return isAbsent && isMade ? [] : [`${what}: ${refusal('folder', folder, error)}`];
  }
}

/** The environment is that of the workers, not this one: of a variable nothing can be said. */
async function checkSecret(what: string, encryption: EncryptionConfig): Promise<string[]> {
  if ('passphraseEnvironment' in encryption) return [];
  const file = 'keyFile' in encryption ? encryption.keyFile : encryption.passphraseFile;
  const problems = await checkReadable(`${what}, key`, file);
  if (problems.length > 0) return problems;
  const mode = (await stat(file)).mode;
  return isOpenToOthers(mode) ? [`${what}, key: ${file} can be used by every user of this machine`] : [];
}

async function checkRepository({ repositoryId, folder, encryption }: RepositoryConfig): Promise<string[]> {
  const what = `repository ${repositoryId}`;
  return [
    ...(await checkRepositoryFolder(what, folder)),
    ...(await checkKind(what, folder, encryption !== undefined)),
    ...(encryption ? await checkSecret(what, encryption) : []),
  ];
}

/** A repository is encrypted from its first day, or never; of a file that cannot be read its worker will tell. */
async function checkKind(what: string, folder: string, isMeant: boolean): Promise<string[]> {
  const file = path.join(folder, 'repository.json');
  try {
    const isIt = isEncrypted(parseRepositoryFile(await readFile(file, 'utf8'), file));
    if (isIt === isMeant) return [];
    return [
      `${what}: ${folder} is ${isIt ? '' : 'not '}encrypted, the site has ${isMeant ? 'an' : 'no'} encryption for it`,
    ];
  } catch {
    return [];
  }
}

async function checkRepositoryFolder(what: string, folder: string): Promise<string[]> {
  const problems = await checkFolder(what, folder, true);
  if (problems.length > 0) return problems;
  const names = await readdir(folder).catch((): string[] => []);
  if (names.length === 0 || names.includes('repository.json')) return [];
  return [`${what}: ${path.join(folder, '/')} is neither empty nor a repository (it has no repository.json)`];
}

async function checkQemuVm(vm: QemuVmConfig, listening: Set<string> | null): Promise<string[]> {
  const what = `VM ${vm.name}`;
  const problems = await checkSocket(`${what}, monitor`, vm.qmp, listening);
  // A VM that is off has neither; one line says it.
  if (vm.agent !== undefined && problems.length === 0)
    problems.push(...(await checkSocket(`${what}, guest agent`, vm.agent, listening)));
  for (const disk of vm.disks ?? []) problems.push(...(await checkDisk(vm.name, disk)));
  return problems;
}

async function checkHost(host: HostConfig, listening: Set<string> | null): Promise<string[]> {
  if (host.provider === 'simulated') return [];
  const problems: string[] = [];
  if (host.provider === 'image') {
    for (const vm of host.vms) for (const disk of vm.disks) problems.push(...(await checkDisk(vm.name, disk)));
    return problems;
  }
  problems.push(...(await checkFolder(`scratch of host ${host.hostId}`, host.scratch.folder, true)));
  for (const vm of host.vms) problems.push(...(await checkQemuVm(vm, listening)));
  return problems;
}

/** Warnings for people, in the order of the file; empty when all is there. */
export async function checkMachine(machine: MachineConfig): Promise<string[]> {
  const listening = await listeningSockets();
  const warnings: string[] = [];
  for (const host of machine.hosts) warnings.push(...(await checkHost(host, listening)));
  for (const { proxyId, restoreFolders } of machine.proxies)
    for (const folder of restoreFolders)
      warnings.push(...(await checkFolder(`restore folder of proxy ${proxyId}`, folder, false)));
  for (const repository of machine.repositories) warnings.push(...(await checkRepository(repository)));
  return warnings;
}
