/** One `vmBackup` while it runs: where it is, what was found, and how it is shown. */
import { isCancellation, setCurrentDetails, workflowInfo } from '@temporalio/workflow';
import {
  lineageOf,
  runKeyOf,
  type DiskKey,
  type LineageId,
  type RestorePointId,
  type RunKey,
} from '../schema/domain/ids.ts';
import { hostCtlQueue, hostGuestQueue, hostUndoQueue, repositoryCtlQueue } from '../schema/domain/queues.ts';
import type { DiskPlan, SealOutcome } from '../schema/domain/restore-point.ts';
import type { SessionErrorView, VmBackupInput, VmDiskResult, VmProgress } from '../schema/domain/sessions.ts';
import { type ConsistencyReached, type Finding, type VmStep, vmSteps } from '../schema/domain/states.ts';
import { viewOf } from './failures.ts';
import { type DiskState, renderVm } from './vm-details.ts';
import { Waits } from './waits.ts';
import { WatchedMachines } from './watched-machines.ts';

export class VmRun {
  readonly input: VmBackupInput;
  readonly workflowId = workflowInfo().workflowId;
  readonly run: RunKey = runKeyOf(this.workflowId);
  readonly lineage: LineageId;
  readonly machines: WatchedMachines;
  /** Queues. The same host through three of them: clean-up never waits behind work. */
  readonly host: string;
  readonly hostUndo: string;
  readonly guest: string;
  readonly repository: string;
  readonly waits = new Waits(() => this.show());
  readonly startedAt = new Date().toISOString();
  readonly findings: Finding[] = [];
  readonly disks = new Map<DiskKey, DiskState>();
  step: VmStep = 'waiting';
  /** Where it was when it failed. */
  failedStep: VmStep | null = null;
  restorePointId: RestorePointId | null = null;
  consistency: ConsistencyReached | null = null;
  sealed: SealOutcome | null = null;
  error: SessionErrorView | null = null;
  /** An audit has found change tracking wrong. */
  foundSuspects = false;

  constructor(input: VmBackupInput) {
    const { job, vm } = input;
    const { hostId, vmId } = vm.vm;
    this.input = input;
    this.lineage = lineageOf(job.jobId, vmId, job.repositoryId);
    this.host = hostCtlQueue(hostId);
    this.hostUndo = hostUndoQueue(hostId);
    this.guest = hostGuestQueue(hostId);
    this.repository = repositoryCtlQueue(job.repositoryId);
    this.machines = new WatchedMachines(job.hostWaitMs, (text) => this.waits.tell('a machine', text));
  }

  get waitsFor(): string | null {
    return this.waits.text;
  }

  /** The checkpoint has begun: a graceful stop lets it finish. */
  get isInWork(): boolean {
    return vmSteps.indexOf(this.step) >= vmSteps.indexOf('checkpoint');
  }

  enter(step: VmStep): void {
    this.step = step;
    this.show();
  }

  /** A step beside others: which of them failed is told all the same. */
  async during<T>(step: VmStep, work: () => Promise<T>): Promise<T> {
    this.enter(step);
    try {
      return await work();
    } catch (error) {
      if (!isCancellation(error)) this.failedStep ??= step;
      throw error;
    }
  }

  fail(error: unknown): void {
    this.error = viewOf(error);
    this.failedStep ??= this.step;
    this.enter('undoing');
  }

  note(...findings: readonly Finding[]): void {
    this.findings.push(...findings);
    this.show();
  }

  warn(code: string, message: string): void {
    this.note({ level: 'warning', code, message });
  }

  /** What is decided about a disk; figures gathered before stay. */
  plan(plan: DiskPlan): DiskState {
    const { diskKey, mode, reason, sizeBytes } = plan;
    const figures = { readBytes: 0, sentBytes: 0, conservation: null, audit: null };
    const none = { proxyId: null, ...figures, state: 'waiting' as const };
    const disk = { ...none, ...this.disks.get(diskKey), diskKey, mode, reason, sizeBytes };
    this.disks.set(diskKey, disk);
    return disk;
  }

  progress(): VmProgress {
    const { run, step, waitsFor, restorePointId, findings } = this;
    return { run, step, waitsFor, restorePointId, findings, disks: [...this.disks.values()] };
  }

  /** Per disk, with what the seal found where there was one. */
  diskResults(): VmDiskResult[] {
    const sealed = new Map(this.sealed?.manifest.disks.map((disk) => [disk.diskKey, disk]));
    return [...this.disks.values()].map(({ state: _state, ...disk }) => ({
      ...disk,
      conservation: sealed.get(disk.diskKey)?.conservation ?? null,
      audit: sealed.get(disk.diskKey)?.audit ?? null,
    }));
  }

  show(): void {
    setCurrentDetails(renderVm(this));
  }
}
