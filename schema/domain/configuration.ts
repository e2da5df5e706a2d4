/**
 * A site as its owner writes it (site.yaml), after validation: `engines/site` makes these from text.
 * One machine in the embedded stack; several later. Folders and sockets are absolute.
 */
import type { OwnPki } from './security.ts';
import type { DiskKey, HostId, JobId, MachineId, ProxyId, RepositoryId, SiteId, VmId } from './ids.ts';
import type { NetworksConfig } from './networks.ts';
import type { RetentionPolicy } from './retention.ts';
import type { Compression, ConsistencyPolicy } from './states.ts';

export type QemuVmConfig = {
  name: string;
  /** Derived from host and name when not given. */
  vmId: VmId;
  /** QMP socket of our own (one client per monitor). */
  qmp: string;
  /** Guest agent socket; absent: no agent. */
  agent?: string;
  /** For backing the VM up while it is powered off; else only what was seen at the last inspection is known. */
  disks?: { diskKey: DiskKey; file: string; format: 'qcow2' | 'raw' }[];
};

export type ImageVmConfig = {
  name: string;
  vmId: VmId;
  disks: { diskKey: DiskKey; file: string; format: 'qcow2' | 'raw'; allowBacking: boolean }[];
};

export type SimulatedVmConfig = {
  name: string;
  vmId: VmId;
  disks: SimulatedDiskConfig[];
};
/** `image`: a raw file that holds what the disk held at first; else it follows from `seed`. */
export type SimulatedDiskConfig = { diskKey: DiskKey; sizeBytes: number; seed: number; image?: string | undefined };

/**
 * For storage that production lives on; null: no bound. `latencyMs`: of a read, or of a write of a restore, from which on
 * fewer are under way. Absent: no bound.
 */
export type BrakeLimits = {
  readBytesPerSecond: number | null;
  writeBytesPerSecond?: number;
  latencyMs: number | null;
};
/** `name`: "host h1", "datastore ssd". */
export type BrakeConfig = BrakeLimits & { name: string };
export type HostConfig = {
  hostId: HostId;
  slots: number;
  /** Of all its disks together; absent: none. */
  limits?: BrakeLimits;
  /** What lies in one folder has limits of its own. */
  datastores?: { name: string; folder: string; limits: BrakeLimits }[];
} & (
  | { provider: 'qemu'; scratch: { folder: string; maxBytes: number }; vms: QemuVmConfig[] }
  | { provider: 'image'; vms: ImageVmConfig[] }
  | { provider: 'simulated'; vms: SimulatedVmConfig[] }
);

/** Whether a proxy of another machine can read the disks of such a host; else they are exported on a Unix socket of its own. */
export const readsOffHost = {
  qemu: false,
  image: false,
  simulated: true,
} as const satisfies Record<HostConfig['provider'], boolean>;

export type ProxyConfig = {
  proxyId: ProxyId;
  slots: number;
  lanes: number;
  /** Segments of a disk in work at once, over all lanes; default: found out while it is read. */
  readDepth?: number;
  /** Windows of a disk restored at once, over all lanes; default: found out while it is restored. */
  restoreDepth?: number;
  restoreFolders: string[];
};
/** What is done to a repository again and again. */
export type MaintenanceConfig = {
  /** Each day at "HH:MM" in an IANA time zone, or each so often. */
  when: { at: string; timeZone: string } | { everyMs: number };
  /** Bounds of one check of every byte, which goes on where the one before it ended; null: no bound. */
  verify: { maxBytes: number | null; maxMs: number | null };
};
/** Below these, sessions end with a warning; 0: never. */
export type AlarmConfig = { freePercent: number; daysUntilFull: number };
/** Where the secret of an encrypted repository lies, never the secret. Files are absolute. */
export type EncryptionConfig = { passphraseFile: string } | { keyFile: string } | { passphraseEnvironment: string };
export type Address = { host: string; port: number };
/** Files of the certificates that Temporal's server asks for; `true`: those of the machine. Absolute. */
export type TemporalTls =
  | true
  | {
      authority?: string | undefined;
      certificate?: string | undefined;
      key?: string | undefined;
      serverName?: string | undefined;
    };
/** What a repository sends and takes at most, all transfers together; null: no limit. */
export type RateLimits = { readBytesPerSecond: number | null; writeBytesPerSecond: number | null };
export type RepositoryConfig = {
  repositoryId: RepositoryId;
  folder: string;
  slots: number;
  lanes: number;
  /** Absent: none by itself. */
  maintenance?: MaintenanceConfig;
  /** Absent: no alarms. */
  alarms?: AlarmConfig;
  /** Absent: it is plain. */
  encryption?: EncryptionConfig;
  /** Where proxies of other machines reach it, over TLS; absent: they do not. */
  listen?: Address;
  /** From its seal a restore point cannot be removed for so many days; absent: it can. */
  lockDays?: number;
  /** Absent: none. A change of it restarts nothing. */
  limits?: RateLimits;
};

export const cappedWorkers = ['host', 'proxy', 'repository'] as const;
export type CappedWorker = (typeof cappedWorkers)[number];
/** What a worker process may take; null: no bound. `nice` as of the command nice(1), 0 to 19. */
export type WorkerCaps = { memoryBytes: number | null; cpus: number | null; nice: number | null };

/** What one machine runs; the worker processes read it from their machine's file, never from the catalog. */
export type MachineConfig = {
  site: SiteId;
  machineId: MachineId;
  hosts: HostConfig[];
  proxies: ProxyConfig[];
  repositories: RepositoryConfig[];
  /** Absent: the site's own authority. */
  security?: OwnPki;
  /** For machines other than that of the stack. */
  temporal?: { address: string; namespace?: string; tls?: TemporalTls };
  /** Where machines enrol and renew their certificates; absent: a port of the loopback. Of the stack's machine only. */
  enrolment?: Address;
  /** The site's, on each machine; absent: no rules. A change of it restarts nothing. */
  networks?: NetworksConfig;
  /** Absent: no bounds. */
  workers?: Partial<Record<CappedWorker, WorkerCaps>>;
};

/** A program in the guest, run through its agent. `timeoutMs` at most 10 min. */
export type GuestScript = { path: string; args: string[]; timeoutMs: number };
/** `success` runs after the seal (log truncation). null: none. */
export type GuestScripts = { preFreeze: GuestScript | null; postThaw: GuestScript | null; success: GuestScript | null };

/**
 * Of one job, since a session starts all of them itself. Each try of a VM is 9 events of the session's history, and there
 * are four tries: 36,000 of the 51,200 at which Temporal terminates a workflow. The rest is for stopping, and all else.
 */
export const MAX_VMS_PER_JOB = 1000;

export type JobConfig = {
  jobId: JobId;
  vms: { hostId: HostId; name: string; vmId: VmId; excludeDisks: DiskKey[] }[];
  repositoryId: RepositoryId;
  /** Empty: any proxy. */
  proxies: ProxyId[];
  consistency: ConsistencyPolicy;
  scripts: GuestScripts;
  compression: Compression;
  blockSize: number;
  /** VMs of one session in work at once. */
  maxParallelVms: number;
  /** How long a session waits for a host or repository that does not answer. */
  hostWaitMs: number;
  /** Absent: restore points are never removed. */
  retention?: RetentionPolicy;
};

export type SiteConfig = { site: SiteId; machines: MachineConfig[]; jobs: JobConfig[] };

/** Difference between two applied sites, for people and for `--json`. */
export type SiteChange = {
  kind: 'host' | 'proxy' | 'repository' | 'job' | 'vm' | 'machine' | 'security' | 'enrolment' | 'temporal';
  id: string;
  change: 'added' | 'changed' | 'removed';
};
