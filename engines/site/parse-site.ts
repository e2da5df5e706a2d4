/** site.yaml: from text to a validated site. Pure: reads no file, looks at no machine. */
import { type Document, LineCounter, parseDocument } from 'yaml';
import {
  type BrakeLimits,
  type CappedWorker,
  cappedWorkers,
  type EncryptionConfig,
  type GuestScript,
  type HostConfig,
  type JobConfig,
  type MaintenanceConfig,
  type RateLimits,
  type ProxyConfig,
  type RepositoryConfig,
  type MachineConfig,
  type SiteConfig,
  type WorkerCaps,
} from '../../schema/domain/configuration.ts';
import type { NetworksConfig, ThrottleRule } from '../../schema/domain/networks.ts';
import { messageOf } from '../../schema/domain/errors.ts';
import {
  diskKey,
  type HostId,
  hostId,
  jobId,
  machineId,
  proxyId,
  repositoryId,
  siteId,
  vmId,
  vmIdOf,
  type VmId,
} from '../../schema/domain/ids.ts';
import type { OwnPki } from '../../schema/domain/security.ts';
import { DEFAULT_DAYS, type RetentionPolicy } from '../../schema/domain/retention.ts';
import { DEFAULT_MAINTENANCE_TIME, type MaintenanceText } from './maintenance-shape.ts';
import type { BrakeText } from './networks-shape.ts';
import { didYouMean } from './nearest-name.ts';
import {
  badAlias,
  badSite,
  describeValue,
  type Finding,
  placeFindings,
  repeatedKeys,
  type ValuePath,
} from './problems.ts';
import { checkReferences, indexVms } from './references.ts';
import type { RetentionText } from './retention-shape.ts';
import {
  type HostText,
  type JobText,
  type RepositoryText,
  type ScriptText,
  siteShape,
  type SiteText,
} from './site-shape.ts';

/** Bytes; whoever reads the file should look at its size first. */
export const MAX_SITE_BYTES = 1024 * 1024;
/** Times that YAML aliases may be used: a file of a kilobyte could else ask for gigabytes. */
const MAX_ALIASES = 100;
const TOO_DEEP = 'it is nested too deeply';

/**
 * `fileName` is for messages. `machineName`: of the machine when the file names none. BAD_CONFIG with all problems at
 * once: details.problems [{line, column, path, message}], at most 20 of details.problemCount.
 */
export function parseSite(text: string, fileName: string, machineName = 'localhost'): SiteConfig {
  const lines = new LineCounter();
  const { document, value } = readYaml(text, fileName, lines);
  const shape = siteShape.safeParse(value);
  const findings = [
    ...repeatedKeys(document),
    ...(shape.error?.issues ?? []).flatMap((issue) => findingsOf(issue, value)),
    ...checkReferences(value),
  ];
  if (shape.success && findings.length === 0) return siteOf(shape.data, machineName);
  throw badSite(fileName, placeFindings(document, lines, findings), findings.length);
}

function readYaml(text: string, fileName: string, lines: LineCounter): { document: Document; value: unknown } {
  const wrong = (message: string, offset = 0): Error => {
    const { line, col } = lines.linePos(offset);
    return badSite(fileName, [{ line: Math.max(line, 1), column: Math.max(col, 1), path: '', message }]);
  };
  if (text.length > MAX_SITE_BYTES)
    throw wrong(`expected at most ${MAX_SITE_BYTES} bytes, found ${text.length} characters`);
  try {
    const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: false });
    const [error] = [...document.errors, ...document.warnings];
    if (error) throw wrong(error.message.startsWith('Maximum call stack') ? TOO_DEEP : error.message, error.pos[0]);
    const alias = badAlias(document, MAX_ALIASES);
    if (alias) throw wrong(alias.message, alias.offset);
    return { document, value: document.toJS({ maxAliasCount: MAX_ALIASES }) as unknown };
  } catch (error) {
    if (error instanceof RangeError) throw wrong(TOO_DEEP);
    if (error instanceof ReferenceError) throw wrong(`aliases ask for too much (${messageOf(error)})`);
    throw error;
  }
}

type Issue = { code: string; path: PropertyKey[]; message: string; keys?: string[] };

function findingsOf({ code, path, message, keys }: Issue, site: unknown): Finding[] {
  const at = path as (string | number)[];
  if (code === 'unrecognized_keys')
    return keys!.map((key) => ({
      path: at,
      key,
      say: () => `this key is not known here (${message})${didYouMean(key, message.split(', '))}`,
    }));
  const found = valueAt(site, at);
  const options = /^one of [a-z]/.test(message) ? message.slice('one of '.length).split(', ') : [];
  const hint = (): string => (typeof found === 'string' ? didYouMean(found, options) : '');
  return [{ path: at, say: () => `expected ${message}, found ${describeValue(found)}${hint()}` }];
}

function valueAt(value: unknown, path: ValuePath): unknown {
  let here = value;
  for (const part of path) {
    // The short form of a job's VM is a text where the shape has a mapping.
    if (here === null || typeof here !== 'object') return here;
    here = (here as Record<string | number, unknown>)[part];
  }
  return here;
}

// ---- from the text's words to the domain's -----------------------------------------------------

function siteOf(site: SiteText, machineName: string): SiteConfig {
  const hosts = site.hosts.map(hostOf);
  return {
    site: siteId(site.site),
    machines: machinesOf(site, machineName),
    jobs: site.jobs.map((job) => jobOf(job, hosts, site.timeZone)),
  };
}

/** That of the stack first. */
function machinesOf(site: SiteText, machineName: string): MachineConfig[] {
  const own = site.machine ?? machineName;
  const things = [...site.hosts, ...site.proxies, ...site.repositories];
  const names = [...new Set([own, ...things.map(({ machine }) => machine ?? own)])];
  const { security, temporal, networks, workers, enrolment } = site;
  return names.map((name) => {
    const isHere = ({ machine }: { machine?: string | undefined }): boolean => (machine ?? own) === name;
    return {
      site: siteId(site.site),
      machineId: machineId(name),
      hosts: site.hosts.filter(isHere).map(hostOf),
      proxies: site.proxies.filter(isHere).map(proxyOf),
      repositories: site.repositories.filter(isHere).map((each) => repositoryOf(each, site.timeZone)),
      ...defined({
        security: security && ownPkiOf(security),
        temporal: temporal && name !== own ? defined(temporal) : undefined,
        networks: networks && networksOf(networks, site.timeZone),
        workers: workers && name === own ? workersOf(workers) : undefined,
        enrolment: name === own ? enrolment?.listen : undefined,
      }),
    };
  });
}

function proxyOf({
  name,
  slots,
  lanes,
  readDepth,
  restoreDepth,
  restoreFolders,
}: SiteText['proxies'][number]): ProxyConfig {
  return { proxyId: proxyId(name), slots, lanes, ...defined({ readDepth, restoreDepth }), restoreFolders };
}

function ownPkiOf({ machines, ...files }: NonNullable<SiteText['security']>): OwnPki {
  const named = machines.map(({ name, machine, roles }) => ({ name, machineId: machineId(machine), roles }));
  return { ...defined(files), machines: named };
}

/** Without keys that stand for nothing: they would be lost on the way through JSON, and look like a change. */
const defined = <T extends object>(of: T): { [K in keyof T]: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(of).filter(([, value]) => value !== undefined)) as never;

function repositoryOf(repository: RepositoryText, timeZone: string): RepositoryConfig {
  const { name, folder, slots, lanes, alarms, maintenance, encryption, lockDays, listen, limits } = repository;
  return {
    ...(listen === undefined ? {} : { listen }),
    repositoryId: repositoryId(name),
    folder,
    slots,
    lanes,
    alarms,
    ...(lockDays === undefined ? {} : { lockDays }),
    ...(limits === undefined ? {} : { limits: limitsOf(limits) }),
    ...(maintenance === null ? {} : { maintenance: maintenanceOf(maintenance, timeZone) }),
    ...(encryption === undefined ? {} : { encryption: encryptionOf(encryption) }),
  };
}

const limitsOf = ({ read, write }: NonNullable<RepositoryText['limits']>): RateLimits => ({
  readBytesPerSecond: read ?? null,
  writeBytesPerSecond: write ?? null,
});

function networksOf({ preferred, throttle }: NonNullable<SiteText['networks']>, timeZone: string): NetworksConfig {
  const rules = throttle.map(({ rate, hours, ...rule }): ThrottleRule => ({
    ...rule,
    rateBytesPerSecond: rate,
    hours: hours.map(({ days, from, to }) => ({ days, fromMinute: from, toMinute: to % (24 * 60) })),
  }));
  return { timeZone, preferred, throttle: rules };
}

function workersOf(workers: NonNullable<SiteText['workers']>): NonNullable<MachineConfig['workers']> {
  const capsOf = ({ memory, cpus, nice }: NonNullable<(typeof workers)[CappedWorker]>): WorkerCaps => ({
    memoryBytes: memory ?? null,
    cpus: cpus ?? null,
    nice: nice ?? null,
  });
  return Object.fromEntries(cappedWorkers.flatMap((name) => (workers[name] ? [[name, capsOf(workers[name])]] : [])));
}

const maintenanceOf = ({ at, every, verify }: MaintenanceText, timeZone: string): MaintenanceConfig => ({
  when: every === undefined ? { at: at ?? DEFAULT_MAINTENANCE_TIME, timeZone } : { everyMs: every },
  verify: { maxBytes: verify.maxBytes ?? null, maxMs: verify.maxTime ?? null },
});

/** The shape has seen to it that exactly one is there. */
function encryptionOf(places: NonNullable<RepositoryText['encryption']>): EncryptionConfig {
  const { passphraseFile, keyFile, passphraseEnvironment } = places;
  if (passphraseFile !== undefined) return { passphraseFile };
  return keyFile === undefined ? { passphraseEnvironment: passphraseEnvironment! } : { keyFile };
}

const brakesOf = ({ readRate, writeRate, latency }: BrakeText): BrakeLimits => ({
  readBytesPerSecond: readRate ?? null,
  ...(writeRate === undefined ? {} : { writeBytesPerSecond: writeRate }),
  latencyMs: latency ?? null,
});

function hostOf(host: HostText): HostConfig {
  const id = hostId(host.name);
  const datastores = host.datastores?.map(({ limits, ...rest }) => ({ ...rest, limits: brakesOf(limits) }));
  const common = {
    hostId: id,
    slots: host.slots,
    ...(host.limits === undefined ? {} : { limits: brakesOf(host.limits) }),
    ...(datastores === undefined ? {} : { datastores }),
  };
  const idOf = (vm: { name: string; uuid?: string | undefined }): { name: string; vmId: VmId } => ({
    name: vm.name,
    vmId: vm.uuid === undefined ? vmIdOf(id, vm.name) : vmId(vm.uuid),
  });
  if (host.provider === 'qemu') {
    const { folder, limit } = host.scratch;
    const vms = host.vms.map((vm) => ({
      ...idOf(vm),
      qmp: vm.qmp,
      ...(vm.agent === undefined ? {} : { agent: vm.agent }),
      ...(vm.disks === undefined ? {} : { disks: vm.disks.map(diskOf) }),
    }));
    return { ...common, provider: 'qemu', scratch: { folder, maxBytes: limit }, vms };
  }
  if (host.provider === 'image') {
    const vms = host.vms.map((vm) => ({ ...idOf(vm), disks: vm.disks.map(diskOf) }));
    return { ...common, provider: 'image', vms };
  }
  const vms = host.vms.map((vm) => ({
    ...idOf(vm),
    disks: vm.disks.map(({ name, size, ...content }) => ({ diskKey: diskKey(name), sizeBytes: size, ...content })),
  }));
  return { ...common, provider: 'simulated', vms };
}

const diskOf = <D extends { name: string }>({ name, ...rest }: D) => ({ diskKey: diskKey(name), ...rest });

type KnownVm = { hostId: HostId; name: string; vmId: VmId; canFreeze: boolean };

function jobOf(job: JobText, hosts: HostConfig[], timeZone: string): JobConfig {
  const known = hosts.flatMap(vmsOf);
  const index = indexVms(known.map((vm) => ({ host: vm.hostId, name: vm.name, vm })));
  const chosen = job.vms.map(({ vm, excludeDisks }) => ({
    known: index.get(vm)!,
    excludeDisks: excludeDisks.map(diskKey),
  }));
  return {
    jobId: jobId(job.name),
    vms: chosen.map(({ known: { hostId, name, vmId }, excludeDisks }) => ({ hostId, name, vmId, excludeDisks })),
    repositoryId: repositoryId(job.repository),
    proxies: job.proxies.map(proxyId),
    // Asking guests that have no agent would only make every session end in a warning.
    consistency: job.consistency ?? (chosen.some((vm) => vm.known.canFreeze) ? 'prefer' : 'none'),
    scripts: {
      preFreeze: scriptOf(job.scripts.preFreeze),
      postThaw: scriptOf(job.scripts.postThaw),
      success: scriptOf(job.scripts.success),
    },
    compression: job.compression,
    blockSize: job.blockSize,
    maxParallelVms: job.maxParallelVms,
    hostWaitMs: job.hostWait,
    ...(job.retention === undefined ? {} : { retention: retentionOf(job.retention, timeZone) }),
  };
}

const retentionOf = (retention: RetentionText, timeZone: string): RetentionPolicy => ({
  count: retention.count ?? null,
  days: retention.days ?? (retention.count === undefined ? DEFAULT_DAYS : null),
  weekly: retention.weekly ?? null,
  monthly: retention.monthly === undefined ? null : { keep: retention.monthly },
  yearly: retention.yearly ?? null,
  minimum: retention.minimum,
  deletedVmDays: retention.deletedVmDays ?? null,
  timeZone,
});

function vmsOf(host: HostConfig): KnownVm[] {
  return host.vms.map((vm) => ({
    hostId: host.hostId,
    name: vm.name,
    vmId: vm.vmId,
    canFreeze: host.provider === 'simulated' || ('agent' in vm && vm.agent !== undefined),
  }));
}

const scriptOf = (script: ScriptText | undefined): GuestScript | null =>
  script === undefined ? null : { path: script.path, args: script.args, timeoutMs: script.timeout };
