/** The shape of site.yaml, before names are resolved. */
import { z } from 'zod';
import { MAX_VMS_PER_JOB } from '../../schema/domain/configuration.ts';
import { isSiteId } from '../../schema/domain/ids.ts';
import { blockSizes, compressions, DEFAULT_BLOCK_SIZE } from '../../schema/domain/states.ts';
import { parseSize } from './measures.ts';
import { alarms, maintenance } from './maintenance-shape.ts';
import { brakeLimits, limits, networks } from './networks-shape.ts';
import { workers } from './workers-shape.ts';
import { retention } from './retention-shape.ts';
import { address, securityShapes } from './security-shape.ts';
import { duration, flag, leaf, listOf, oneOf, shortName, size, strict, textWhere, whole } from './shape-leaves.ts';

/** `sun_path` of Linux holds 108 bytes, the closing zero among them. */
const MAX_SOCKET_PATH_BYTES = 107;
const MAX_PATH_BYTES = 4095;
const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
const MAX_THINGS = 256;
const MAX_VMS = 10_000;
const MAX_DISKS = 64;

/** Without doubled slashes and one at the end; null when it is not absolute or goes upwards. */
export function normalPath(value: unknown): string | null {
  if (typeof value !== 'string' || !value.startsWith('/') || value.includes('\0')) return null;
  const parts = value.split('/').filter((part) => part !== '' && part !== '.');
  return parts.includes('..') ? null : `/${parts.join('/')}`;
}
const bytesOf = (text: string): number => new TextEncoder().encode(text).length;
const pathUpTo = (expected: string, maxBytes: number) =>
  leaf(expected, (value) => {
    const path = normalPath(value);
    return path !== null && path !== '/' && bytesOf(path) <= maxBytes ? path : null;
  });
const absolutePath = pathUpTo('an absolute path without ".."', MAX_PATH_BYTES);
const socketPath = pathUpTo(
  `an absolute path without ".." of at most ${MAX_SOCKET_PATH_BYTES} bytes (the limit of Unix sockets)`,
  MAX_SOCKET_PATH_BYTES,
);

/**
 * As the rest of the product and Temporal take it: Temporal knows names in one spelling only, and no offsets, which would be
 * wrong for half of the year anyhow. Null: it is none.
 */
function timeZoneName(value: unknown): string | null {
  if (typeof value !== 'string') return null;
  try {
    const { timeZone } = new Intl.DateTimeFormat('en', { timeZone: value }).resolvedOptions();
    return /^[+-]/.test(timeZone) ? null : timeZone;
  } catch {
    return null;
  }
}
const timeZone = leaf('the name of a time zone, like UTC or Europe/Berlin (no offset)', timeZoneName);

/** Part of the names of restored files. */
// oxlint-disable-next-line no-control-regex
const vmNamePattern = /^[^\s./@\u0000-\u001f\u007f](?:[^/\u0000-\u001f\u007f]{0,126}[^\s/\u0000-\u001f\u007f])?$/;
const vmName = textWhere('a name of at most 128 characters without "/", with no "." or "@" in front', (text) =>
  vmNamePattern.test(text),
);
const diskName = textWhere(
  'a disk name: 1 to 31 of letters, digits, ".", "_" and "-", a letter or digit first',
  (text) => /^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$/.test(text),
);
const uuid = leaf('a UUID, like 3f0c1e8a-5d1b-4c7e-9a54-0b8f6d1c2e77', (value) =>
  typeof value === 'string' && /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value)
    ? value.toLowerCase()
    : null,
);
const text = textWhere('a text', (value) => value.length <= 4096);

const imageFile = { name: diskName, file: absolutePath, format: oneOf(['qcow2', 'raw']) };
const vmHead = { name: vmName, uuid: uuid.optional() };

const qemuVm = strict('a VM: name, qmp and more', {
  ...vmHead,
  qmp: socketPath,
  agent: socketPath.optional(),
  disks: listOf('disks', strict('a disk: name, file, format', imageFile), MAX_DISKS).optional(),
});
const imageDisk = strict('a disk: name, file, format', { ...imageFile, allowBacking: flag.prefault(false) });
const imageVm = strict('a VM: name, disks', { ...vmHead, disks: listOf('disks', imageDisk, MAX_DISKS) });
const simulatedDisk = strict('a disk: name, size, seed or image', {
  name: diskName,
  size: size(0, 2 ** 50, '0 to 1PiB'),
  seed: whole(0, 2 ** 31).prefault(1),
  image: absolutePath.optional(),
});
const simulatedVm = strict('a VM: name, disks', { ...vmHead, disks: listOf('disks', simulatedDisk, MAX_DISKS) });

const datastore = strict('a datastore: name, folder, limits', {
  name: shortName,
  folder: absolutePath,
  limits: brakeLimits,
});
/** The machine it is on; absent: that of the stack. */
const onMachine = { machine: shortName.optional() };
const hostHead = {
  name: shortName,
  ...onMachine,
  slots: whole(1, 256).prefault(4),
  limits: brakeLimits.optional(),
  datastores: listOf('datastores', datastore, MAX_THINGS).optional(),
};
const scratch = strict('a mapping with folder and limit', {
  folder: absolutePath,
  limit: size(64 * 2 ** 20, 2 ** 50, '64MiB to 1PiB').prefault('64GiB'),
});
export const providers = ['qemu', 'image', 'simulated'] as const;
const host = z.discriminatedUnion(
  'provider',
  [
    strict('a host', { ...hostHead, provider: z.literal('qemu'), scratch, vms: listOf('VMs', qemuVm, MAX_VMS) }),
    strict('a host', { ...hostHead, provider: z.literal('image'), vms: listOf('VMs', imageVm, MAX_VMS) }),
    strict('a host', { ...hostHead, provider: z.literal('simulated'), vms: listOf('VMs', simulatedVm, MAX_VMS) }),
  ],
  {
    error: (issue) =>
      issue.code === 'invalid_union' ? `one of ${providers.join(', ')}` : 'a host: name, provider, vms and more',
  },
);

const proxy = strict('a proxy: name and more', {
  name: shortName,
  ...onMachine,
  slots: whole(1, 256).prefault(2),
  lanes: whole(1, 64).prefault(2),
  readDepth: whole(1, 32).optional(),
  restoreDepth: whole(1, 128).optional(),
  restoreFolders: listOf('folders', absolutePath, MAX_THINGS).prefault([]),
});
const secretPlaces = {
  passphraseFile: absolutePath.optional(),
  keyFile: absolutePath.optional(),
  passphraseEnvironment: textWhere('the name of an environment variable', (value) =>
    /^[A-Za-z_][A-Za-z0-9_]{0,127}$/.test(value),
  ).optional(),
};
const secretNames = Object.keys(secretPlaces) as (keyof typeof secretPlaces)[];
const encryption = strict(`a mapping with one of ${secretNames.join(', ')}`, secretPlaces).refine(
  (value) => secretNames.filter((name) => value[name] !== undefined).length === 1,
  { error: `exactly one of ${secretNames.join(', ')}` },
);
const repository = strict('a repository: name, folder and more', {
  name: shortName,
  ...onMachine,
  listen: address.optional(),
  folder: absolutePath,
  slots: whole(1, 256).prefault(4),
  lanes: whole(1, 64).prefault(2),
  maintenance,
  alarms,
  encryption: encryption.optional(),
  lockDays: whole(1, 36_500).optional(),
  limits: limits.optional(),
});

const script = strict('a script: path and more', {
  path: textWhere('the path of a program in the guest', (value) => value !== '' && bytesOf(value) <= MAX_PATH_BYTES),
  args: listOf('texts', text, MAX_THINGS).prefault([]),
  timeout: duration(1000, 10 * MINUTE_MS, '1s to 10m').prefault('5m'),
});
const scripts = strict('a mapping with preFreeze, postThaw, success', {
  preFreeze: script.optional(),
  postThaw: script.optional(),
  success: script.optional(),
});
/** "host/name", the name alone, or a mapping with more. */
const jobVm = z.preprocess(
  (value) => (typeof value === 'string' ? { vm: value } : value),
  strict('a VM: its name, host/name, or a mapping with vm and excludeDisks', {
    vm: textWhere('the name of a VM, or host/name', (value) => value !== ''),
    excludeDisks: listOf('disk names', diskName, MAX_DISKS).prefault([]),
  }),
);
const blockSize = leaf('one of 256KiB, 512KiB, 1MiB, 4MiB', (value) => {
  const bytes = parseSize(value);
  return blockSizes.find((each) => each === bytes) ?? null;
});
/** More would be refused when a session plans them. */
const jobVms = listOf('VMs, all that a session can take (split the job into several)', jobVm, MAX_VMS_PER_JOB);
const job = strict('a job: name, vms, repository and more', {
  name: shortName,
  vms: jobVms.min(1, { error: 'at least one VM' }),
  repository: textWhere('the name of a repository', (value) => value !== ''),
  proxies: listOf(
    'proxy names',
    textWhere('the name of a proxy', (value) => value !== ''),
    MAX_THINGS,
  ).prefault([]),
  consistency: oneOf(['require', 'prefer', 'none']).optional(),
  scripts: scripts.prefault({}),
  compression: oneOf(compressions).prefault('balanced'),
  blockSize: blockSize.prefault(DEFAULT_BLOCK_SIZE),
  maxParallelVms: whole(1, 250).prefault(4),
  hostWait: duration(0, DAY_MS, '0s to 24h').prefault('15m'),
  retention: retention.optional(),
});

export const siteShape = strict('a mapping: site, hosts, proxies, repositories, jobs', {
  site: textWhere('1 to 6 of a-z and 0-9, the name of this installation', isSiteId),
  machine: shortName.optional(),
  ...securityShapes(absolutePath),
  timeZone: timeZone.prefault('UTC'),
  networks: networks.optional(),
  workers: workers.optional(),
  hosts: listOf('hosts', host, MAX_THINGS).prefault([]),
  proxies: listOf('proxies', proxy, MAX_THINGS).prefault([]),
  repositories: listOf('repositories', repository, MAX_THINGS).prefault([]),
  jobs: listOf('jobs', job, MAX_THINGS).prefault([]),
});

export type SiteText = z.output<typeof siteShape>;
export type HostText = SiteText['hosts'][number];
export type JobText = SiteText['jobs'][number];
export type RepositoryText = SiteText['repositories'][number];
export type ScriptText = z.output<typeof script>;
