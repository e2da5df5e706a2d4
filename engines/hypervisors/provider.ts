/**
 * One interface for QEMU, libvirt, Hyper-V, images and the simulator.
 *
 * Every verb: `(run, same arguments)` again gives the same answer. Removing verbs: already gone is success.
 * Host verbs run at the VM's present owner; each may throw VM_MOVED, VM_NOT_FOUND, PLATFORM_BUSY.
 * `contract.ts` holds the one suite that every provider passes.
 */
import type { DiskKey, LineageId, ProxyId, RunKey } from '../../schema/domain/ids.ts';
import type {
  Artifact,
  BaseVerdict,
  Capabilities,
  Checkpoint,
  CheckpointSpec,
  DiskAccess,
  GuestEvent,
  ReferencePoint,
  Released,
  VmFacts,
  VmRef,
  VmSummary,
} from '../../schema/domain/hypervisor.ts';

/**
 * Freezes and thaws a guest's file systems; only quiesce 'agent' uses it. Implemented by the guest keeper's client:
 * the keeper thaws at the deadline, when the caller's connection is lost, and at its own start (invariant 7).
 */
export type Freezer = {
  /** Number of file systems frozen; throws GUEST_UNREACHABLE or GUEST_FREEZE_FAILED. Bounded by `deadlineMs` from the call. */
  freeze(vm: VmRef, run: RunKey, deadlineMs: number): Promise<{ fileSystems: number }>;
  isFrozen(vm: VmRef): Promise<boolean>;
  /** `byUs`: our own thaw found the guest frozen and thawed as many file systems as were frozen (false: it had been thawed before). */
  thaw(vm: VmRef, run: RunKey): Promise<{ fileSystems: number; byUs: boolean; frozenMs: number }>;
};

export type HypervisorProvider = {
  capabilities(): Promise<Capabilities>;
  /** Every VM, also those that cannot be looked at now. */
  listVms(): AsyncIterable<VmSummary>;
  inspectVm(vm: VmRef): Promise<VmFacts>;
  /** Pure reading; doubt = compare (invariant 11). One verdict per disk of the VM. */
  judgeBase(vm: VmRef, base: ReferencePoint | null): Promise<BaseVerdict[]>;
  createCheckpoint(spec: CheckpointSpec, freezer: Freezer): Promise<Checkpoint>;
  /** Adopts after a lost reply; null when there is none, or only part of one. */
  findCheckpoint(run: RunKey): Promise<Checkpoint | null>;
  openAccess(run: RunKey, diskKey: DiskKey, reader: ProxyId): Promise<DiskAccess>;
  /** All handles shut before release. */
  closeAccess(run: RunKey, reader?: ProxyId): Promise<void>;
  releaseCheckpoint(run: RunKey): Promise<Released>;
  awaitMerge(run: RunKey, signal: AbortSignal): Promise<void>;
  /** Drops older reference points of this lineage only. */
  commitReferencePoint(lineage: LineageId, keep: ReferencePoint): Promise<void>;
  /** After it, the previous one answers for everything since itself. */
  discardReferencePoint(run: RunKey): Promise<void>;
  watch(run: RunKey, signal: AbortSignal): AsyncIterable<GuestEvent>;
  /** From names on the platform and from the host's ledger. */
  listArtifacts(): AsyncIterable<Artifact>;
  removeArtifact(artifact: Artifact): Promise<void>;
  close(): Promise<void>;
};
