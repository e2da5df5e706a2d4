/** Which VMs a session takes, and what is known of them beforehand. Pure. */
import type { InventoryVm } from '../../schema/catalog/resources.ts';
import { type JobConfig, MAX_VMS_PER_JOB } from '../../schema/domain/configuration.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { VmSummary } from '../../schema/domain/hypervisor.ts';
import type { HostId, VmId } from '../../schema/domain/ids.ts';
import type { PlannedVm, SessionPlan } from '../../schema/domain/sessions.ts';
import type { Finding } from '../../schema/domain/states.ts';
import { expectedBytes, type StoredBefore } from './expected-bytes.ts';

type JobVm = JobConfig['vms'][number];
export type Known = {
  /** What hosts answered just now. */
  inventories: readonly { hostId: HostId; vms: readonly VmSummary[] }[];
  /** What the catalog remembers. */
  remembered: readonly InventoryVm[];
  /** Only these VMs of the job; null: all. */
  only: ReadonlySet<VmId> | null;
  /** What restore points of the job have taken in its repository, newest first. */
  stored: readonly (StoredBefore & { vmId: string })[];
};
type Found = { summary: VmSummary | null; from: 'host' | 'memory' | 'nowhere'; seenAt: string | null };

/**
 * A VM on no inventory is planned all the same, with a warning: its own backup fails, the others do not. VM_NOT_FOUND
 * when that is so for every one. BAD_REQUEST: of `only` the job has none any more; a session of nothing is no success.
 * JOB_TOO_LARGE: a job of before there was a limit; its history would end in the middle of the night.
 */
export function planVms(job: JobConfig, known: Known): SessionPlan {
  const { only } = known;
  const wanted = job.vms.filter(({ vmId }) => only?.has(vmId) ?? true);
  const gone = [...(only ?? [])].filter((vmId) => !job.vms.some((vm) => vm.vmId === vmId));
  if (wanted.length === 0) throw nothingLeft(job, gone);
  if (wanted.length > MAX_VMS_PER_JOB) throw tooMany(job, wanted.length);
  const found = wanted.map((vm) => ({ vm, found: find(vm, known) }));
  const missing = found.filter((each) => each.found.from === 'nowhere').map(({ vm }) => vm);
  if (missing.length > 0 && missing.length === wanted.length) throw notFound(job, missing);
  return {
    vms: found.map((each, position) => plannedVm(each.vm, each.found.summary, position, known.stored)),
    warnings: [
      ...staleWarnings(found.filter((each) => each.found.from === 'memory')),
      ...missing.map(missingWarning),
      ...gone.map((vmId) =>
        warning('VM_NOT_FOUND', `VM ${vmId} is to be tried again, but job ${job.jobId} no longer has it`),
      ),
      ...found.flatMap(({ vm, found: { summary } }) => (summary ? vmFindings(vm, summary) : [])),
    ],
  };
}

function find({ vmId, hostId }: JobVm, { inventories, remembered }: Known): Found {
  const own = inventories.find((each) => each.hostId === hostId);
  const memory = remembered.find((vm) => vm.vmId === vmId);
  for (const { vms } of own ? [own, ...inventories] : inventories) {
    const summary = vms.find(({ vm }) => vm.vmId === vmId);
    // Of a VM that could not be looked at, its host says no more than that it is there.
    const disks = summary?.disks ?? memory?.summary?.disks ?? null;
    if (summary) return { summary: { ...summary, disks }, from: 'host', seenAt: null };
  }
  // Its own host has answered, and does not have it: what was once there counts no more.
  if (own || !memory) return { summary: null, from: 'nowhere', seenAt: null };
  return { summary: memory.summary, from: 'memory', seenAt: memory.inspectedAt };
}

function plannedVm(vm: JobVm, summary: VmSummary | null, position: number, stored: Known['stored']): PlannedVm {
  const excluded = new Set(vm.excludeDisks);
  const disks = summary?.disks?.filter(({ diskKey }) => !excluded.has(diskKey)) ?? null;
  return {
    vm: { vmId: vm.vmId, hostId: summary?.vm.hostId ?? vm.hostId },
    name: summary?.name ?? vm.name,
    excludeDisks: vm.excludeDisks,
    position,
    diskCount: disks?.length ?? null,
    expectedBytes: expectedBytes(
      stored.filter(({ vmId }) => vmId === vm.vmId),
      disks?.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) ?? null,
    ),
  };
}

const warning = (code: string, message: string): Finding => ({ level: 'warning', code, message });

/** One per host: a host may have hundreds of VMs. */
function staleWarnings(stale: readonly { vm: JobVm; found: Found }[]): Finding[] {
  const hosts = [...new Set(stale.map(({ vm }) => vm.hostId))];
  return hosts.map((hostId) => {
    const ages = stale.filter(({ vm }) => vm.hostId === hostId).map(({ found }) => found.seenAt);
    const oldest = ages.includes(null) ? 'never seen' : `seen ${ages.toSorted((a, b) => (a! < b! ? -1 : 1))[0]}`;
    return warning('HOST_SILENT', `host ${hostId} does not answer; of its VMs the last inventory is used (${oldest})`);
  });
}

const missingWarning = ({ name, hostId }: JobVm): Finding =>
  warning('VM_NOT_FOUND', `VM ${name} is not on host ${hostId}, nor on another host that was asked`);

function vmFindings(vm: JobVm, summary: VmSummary): Finding[] {
  const findings: Finding[] = [];
  if (summary.vm.hostId !== vm.hostId)
    findings.push({
      level: 'info',
      code: 'VM_MOVED',
      message: `VM ${vm.name} has moved from host ${vm.hostId} to host ${summary.vm.hostId}`,
    });
  const disks = summary.disks && new Set(summary.disks.map(({ diskKey }) => diskKey));
  for (const diskKey of vm.excludeDisks)
    if (disks?.has(diskKey) === false)
      findings.push(warning('NOT_FOUND', `VM ${vm.name} has no disk ${diskKey}, which the job leaves out`));
  return findings;
}

function nothingLeft({ jobId }: JobConfig, gone: readonly VmId[]): TidemarkError {
  const message = `job ${jobId} no longer has a VM that is to be backed up (${gone.join(', ') || 'it has none'})`;
  return new TidemarkError('BAD_REQUEST', message, { jobId, vms: gone });
}

function tooMany({ jobId }: JobConfig, count: number): TidemarkError {
  const message = `job ${jobId} is to back up ${count} VMs, and one session takes ${MAX_VMS_PER_JOB} at most: split it into several jobs`;
  return new TidemarkError('JOB_TOO_LARGE', message, { jobId, vms: count, limit: MAX_VMS_PER_JOB });
}

function notFound({ jobId }: JobConfig, missing: readonly JobVm[]): TidemarkError {
  const names = missing.map(({ name, hostId }) => `${name} on host ${hostId}`);
  const shown = names.slice(0, 5).join(', ') + (names.length > 5 ? `, ${names.length - 5} more` : '');
  return new TidemarkError('VM_NOT_FOUND', `job ${jobId}: no such VM: ${shown}`, { jobId, vms: names });
}
