/** How the VMs of a session stand. To show it costs the same however many there are, and so does each change. */
import type { VmId } from '../schema/domain/ids.ts';
import type { PlannedVm, VmBackupResult } from '../schema/domain/sessions.ts';
import {
  addStageTimes,
  bottleneckWords,
  noStageTimes,
  stageLine,
  type StageTimes,
  subtractStageTimes,
} from '../schema/domain/stages.ts';
import { MAX_ROWS, tableLine, tableOf } from './markdown.ts';

const TITLES = ['VM', 'host', 'state', 'consistency', 'bottleneck', 'what to know'];

export class VmTally {
  #planned: ReadonlyMap<VmId, PlannedVm> = new Map();
  /** Of the last try that has ended. */
  readonly #results = new Map<VmId, VmBackupResult>();
  /** Attempt of each VM in work, the oldest first. */
  readonly #working = new Map<VmId, number>();
  /** Whose last result is a failure, in the order in which they failed first. */
  readonly #failed = new Set<VmId>();
  /** As they were shown last, of VMs that have not changed since. */
  readonly #lines = new Map<VmId, string>();
  #stages: StageTimes = noStageTimes;

  plan(vms: readonly PlannedVm[]): void {
    this.#planned = new Map(vms.map((vm) => [vm.vm.vmId, vm]));
  }

  /** In the order of the plan. */
  get vms(): PlannedVm[] {
    return [...this.#planned.values()];
  }

  get results(): ReadonlyMap<VmId, VmBackupResult> {
    return this.#results;
  }

  begin(vmId: VmId, attempt: number): void {
    this.#working.set(vmId, attempt);
    this.#lines.delete(vmId);
  }

  /** `result` null: it was cancelled before there was one. */
  end(vmId: VmId, result: VmBackupResult | null): void {
    this.#working.delete(vmId);
    this.#lines.delete(vmId);
    if (!result) return;
    const before = this.#results.get(vmId);
    if (before) this.#stages = subtractStageTimes(this.#stages, stagesOf(before));
    this.#stages = addStageTimes(this.#stages, stagesOf(result));
    this.#results.set(vmId, result);
    if (result.result === 'Failed') this.#failed.add(vmId);
    else this.#failed.delete(vmId);
  }

  counts(): string[] {
    if (this.#planned.size === 0) return [];
    return [`${this.#results.size} of ${this.#planned.size} VMs done, ${this.#working.size} in work`];
  }

  /** Where the time of the VMs done went. */
  flow(): string[] {
    const line = stageLine(this.#stages);
    return line === '' ? [] : [`bottleneck: **${bottleneckWords(this.#stages)}** (${line})`];
  }

  table(): string[] {
    if (this.#planned.size === 0) return [];
    const lines: string[] = [];
    for (const vmId of this.#byUrgency()) {
      if (lines.length === MAX_ROWS) break;
      lines.push(this.#line(vmId));
    }
    return tableOf(TITLES, lines, this.#planned.size);
  }

  /** Failed ones first, then those in work, then the others. */
  *#byUrgency(): Iterable<VmId> {
    yield* this.#failed;
    for (const vmId of this.#working.keys()) if (!this.#failed.has(vmId)) yield vmId;
    for (const vmId of this.#planned.keys()) if (!this.#failed.has(vmId) && !this.#working.has(vmId)) yield vmId;
  }

  #line(vmId: VmId): string {
    const line = this.#lines.get(vmId) ?? tableLine(this.#row(this.#planned.get(vmId)!));
    this.#lines.set(vmId, line);
    return line;
  }

  #row({ vm, name }: PlannedVm): string[] {
    const result = this.#results.get(vm.vmId);
    const attempt = this.#working.get(vm.vmId);
    const state = attempt === undefined ? (result?.result ?? 'waits') : `in work, try ${attempt}`;
    const warning = result?.findings.find((finding) => finding.level === 'warning');
    const note = result?.error ? `${result.error.code}: ${result.error.message}` : (warning?.message ?? '');
    return [name, vm.hostId, state, result?.consistency ?? '', bottleneckWords(result && stagesOf(result)), note];
  }
}

const stagesOf = (result: VmBackupResult): StageTimes =>
  result.disks.map((disk) => disk.stages ?? noStageTimes).reduce<StageTimes>(addStageTimes, noStageTimes);
