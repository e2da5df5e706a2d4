/**
 * Whether what a site names is there: cheap looks at this machine's files and sockets, never at what a socket would
 * answer (a QMP monitor has room for one client). What is found is a warning: a VM may be off, a folder not mounted yet.
 */
import { access, constants, readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import type {
  EncryptionConfig,
  HostConfig,
  MachineConfig,
  QemuVmConfig,
  RepositoryConfig,
} from '../schema/domain/configuration.ts';
import { messageOf } from '../schema/domain/errors.ts';
import { isOpenToOthers } from '../workers/runtime/repository-secret.ts';

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
  return [...(await checkRepositoryFolder(what, folder)), ...(encryption ? await checkSecret(what, encryption) : [])];
}

async function checkRepositoryFolder(what: string, folder: string): Promise<string[]> {
  const problems = await checkFolder(what, folder, true);
  if (problems.length > 0) return problems;
  const names = await readdir(folder).catch((): string[] => []);
  if (names.length === 0 || names.includes('repository.json')) return [];
  return [`${what}: ${path.join(folder, '/')} is neither empty nor a repository (it has no repository.json)`];
}

async function checkQemuVm(what: string, vm: QemuVmConfig, listening: Set<string> | null): Promise<string[]> {
  const problems = await checkSocket(`${what}, monitor`, vm.qmp, listening);
  // A VM that is off has neither; one line says it.
  if (vm.agent !== undefined && problems.length === 0)
    problems.push(...(await checkSocket(`${what}, guest agent`, vm.agent, listening)));
  for (const disk of vm.disks ?? [])
    problems.push(...(await checkReadable(`${what}, disk ${disk.diskKey}`, disk.file)));
  return problems;
}

async function checkHost(host: HostConfig, listening: Set<string> | null): Promise<string[]> {
  if (host.provider === 'simulated') return [];
  const problems: string[] = [];
  if (host.provider === 'image') {
    for (const vm of host.vms)
      for (const disk of vm.disks)
        problems.push(...(await checkReadable(`VM ${vm.name}, disk ${disk.diskKey}`, disk.file)));
    return problems;
  }
  problems.push(...(await checkFolder(`scratch of host ${host.hostId}`, host.scratch.folder, true)));
  for (const vm of host.vms) problems.push(...(await checkQemuVm(`VM ${vm.name}`, vm, listening)));
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
