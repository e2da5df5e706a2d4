/** What crosses the hypervisor boundary as plain data: stored in manifests, histories and ledgers. */
import type { BrakeConfig } from './configuration.ts';
import type { DiskKey, HostId, LineageId, MachineId, ProxyId, RunKey, SiteId, VmId } from './ids.ts';
import type { ConsistencyPolicy, ConsistencyReached, Finding } from './states.ts';

export type Capabilities = {
  quiesce: 'agent' | 'hypervisor' | 'none';
  tracking: 'bitmap' | 'rct' | 'none';
  referencePointAt: 'checkpoint' | 'release';
  trackingSurvivesCrash: boolean;
  poweredOff: boolean;
  offHost: boolean;
  atomicDisks: boolean;
  namesArtifacts: boolean;
  restore: boolean;
  instantRecovery: boolean;
};

/** `hostId` is the last known one; `vmId` is the VM's UUID for life. */
export type VmRef = { vmId: VmId; hostId: HostId };
export type VmSummary = {
  vm: VmRef;
  name: string;
  power: VmPower;
  /** Null: the VM could not be looked at. (Hosts of earlier builds say so with an empty list.) */
  disks: { diskKey: DiskKey; sizeBytes: number }[] | null;
};
export type VmPower = 'on' | 'off' | 'paused' | 'saved';

/** Why something was decided: a stable code and a sentence for people. */
export type Reason = { code: string; message: string };

export type DiskFacts = {
  diskKey: DiskKey;
  sizeBytes: number;
  sectorBytes: 512 | 4096;
  /** Changes when another disk takes this one's place. */
  identity: string;
  shared: boolean;
  snapshotOk: boolean;
  why?: string;
};

export type VmFacts = {
  vm: VmRef;
  name: string;
  power: VmPower;
  firmware: 'bios' | 'uefi';
  disks: DiskFacts[];
  userCheckpoints: number;
  referencePoints: ReferencePoint[];
  notes: Finding[];
};

/** Baseline of change tracking; goes into the manifest whole. */
export type ReferencePoint = {
  run: RunKey;
  lineage: LineageId;
  platformId: string;
  disks: { diskKey: DiskKey; trackingId: string; identity: string; sizeBytes: number }[];
};

export type BaseVerdict = { diskKey: DiskKey; use: 'changes' | 'compare' | 'full'; reason: Reason };

export type CheckpointSpec = {
  run: RunKey;
  vm: VmRef;
  lineage: LineageId;
  disks: DiskKey[];
  base: ReferencePoint | null;
  consistency: ConsistencyPolicy;
};

export type CheckpointDisk = DiskFacts & { verdict: BaseVerdict };

export type Checkpoint = {
  run: RunKey;
  vm: VmRef;
  /** ISO 8601, UTC. */
  takenAt: string;
  reached: ConsistencyReached;
  /** Why less than asked was reached; absent when all was. */
  reachedWhy?: Reason;
  frozenMs: number | null;
  disks: CheckpointDisk[];
  leftOut: { diskKey: DiskKey; why: Reason }[];
};

export type Endpoint = { unix: string } | { host: string; port: number };
/**
 * Where a mover's target is: on `machineId` through its socket, from other machines over TLS at `listen`. `machineId` absent:
 * on this machine. Without a socket: plain TCP, on the loopback.
 */
export type TargetEndpoint =
  { unix: string; machineId?: MachineId; listen?: ListenedAt } | { host: string; port: number };
/** `others`: hosts under which it is reached as well, to be tried in this order when `host` does not answer. */
export type ListenedAt = { host: string; port: number; others?: string[] };

/** How a lane, on any thread of any proxy, opens a disk. Plain data, no secrets. */
export type DiskAccess = {
  run: RunKey;
  diskKey: DiskKey;
  sizeBytes: number;
  identity: string;
  writable: boolean;
  data:
    | { via: 'nbd'; at: Endpoint; export: string; maxConnections: number }
    | { via: 'vhdx'; chain: string[]; storageRoots: string[] }
    | { via: 'simulated'; model: string };
  changes: { via: 'nbd'; at: Endpoint; export: string; context: string } | { via: 'simulated' } | null;
  secretRef?: string;
  /** What holds reading back, for the sake of who lives on the same storage; absent: nothing. */
  brakes?: BrakeConfig[];
};

export type Released = { referencePoint: ReferencePoint | null; merge: 'done' | 'pending' };

export type GuestEvent = { kind: 'scratch-full' | 'paused' | 'off' | 'moved' | 'resized'; at: string; detail: string };

/** Something of ours on a platform, from its name or from the host's ledger. */
export type Artifact = {
  kind: 'temporary' | 'reference-point';
  site: SiteId;
  run: RunKey;
  vm: VmRef;
  /** Human-readable place, e.g. "bitmap td-... on node d0". */
  what: string;
  diskKey?: DiskKey;
  platformName: string;
};

export type AccessReader = ProxyId;
