/** What the resource scheduler is shown and what it answers: plain data between catalog, engine and activities. */
import type { Reason } from './hypervisor.ts';
import type { HostId, MachineId, ProxyId, RepositoryId, RunKey, VmId } from './ids.ts';

/** Order of request types, highest first. */
export const requestOrders = {
  restore: 800,
  checkpointCleanup: 600,
  highPriority: 400,
  backup: 300,
  copy: 200,
  maintenance: 100,
} as const;

export type ResourceKind = 'vm' | 'host' | 'proxy' | 'repository';
export type ResourceRef = { kind: ResourceKind; id: string };

/** One resource in the picture. `limit` 0 drains it. A VM lock has limit 1 and is listed only while it is held. */
export type ResourceState = ResourceRef & {
  limit: number;
  used: number;
  reachable: boolean;
  /** Machine it runs on; null for a VM lock. */
  machineId: string | null;
  /** Of a host: no proxy of another machine can read its disks. */
  ownMachineOnly?: true;
  /** Of a repository, when it was last looked at; absent: not known. */
  freeBytes?: number;
  /** Of a repository: what requests granted and not given back are expected to store. */
  reservedBytes?: number;
};

/** All or nothing: VM lock, host slot and one proxy + repository slot pair; up to `pairs` pairs when they are free. */
export type ResourceWants = {
  /** VM to lock; null: no lock. */
  vmId: VmId | null;
  /** Host that gives a slot; null: none. */
  hostId: HostId | null;
  /** Candidates; empty: any proxy; null: no proxy is needed. */
  proxies: ProxyId[] | null;
  excludedProxies: ProxyId[];
  /** null: no repository slot. */
  repositoryId: RepositoryId | null;
  /** What is expected to be stored in the repository; absent: nothing is reserved. */
  expectedBytes?: number;
  /** At most so many pairs, at least 1. */
  pairs: number;
  /** Host whose disks are read, for the choice of the proxy, when `hostId` is null (further pairs). */
  nearHostId?: HostId;
};

export type ResourceRequest = {
  workflowId: string;
  /** 0 for the first of a workflow; further pairs are asked for under 1, 2, ... */
  requestNumber: number;
  runKey: RunKey;
  /** One of `requestOrders`. */
  order: number;
  manual: boolean;
  /** Milliseconds since the epoch. */
  arrivedAt: number;
  wants: ResourceWants;
};

/** `nowMs`: milliseconds since the epoch. Requests in any order: only those that wait. */
export type ResourcePicture = { nowMs: number; resources: ResourceState[]; requests: ResourceRequest[] };

/** `pair`: number of the pair within its request, from 0; null for VM lock and host slot. */
export type GrantedLease = ResourceRef & { pair: number | null };
export type ResourceGrant = { workflowId: string; requestNumber: number; leases: GrantedLease[]; reason: Reason };
/** Why a request waits. `position` counts from 1 in the order of service. */
export type WaitReason = { workflowId: string; requestNumber: number; position: number; reason: Reason };
export type ResourceDecision = { grants: ResourceGrant[]; reasons: WaitReason[] };
export type DecideResources = (picture: ResourcePicture) => ResourceDecision;

/** A lease as its owner holds it. */
export type HeldLease = GrantedLease & {
  /** Of a proxy: the machine it is on, which a repository binds a transfer to. */
  machineId?: MachineId;
  leaseId: number;
  requestNumber: number;
  workflowId: string;
  runKey: RunKey;
  /** ISO 8601, UTC. */
  grantedAt: string;
};
