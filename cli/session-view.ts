/**
 * Gathers what is known of a running session: catalog rows, and for the VMs in work their workflow's description and
 * answer. Whatever does not answer is said in the picture, and the last known state stays in it.
 */
import { ApplicationFailure, type Client, WorkflowFailedError } from '@temporalio/client';
import { loadSession, type SessionError, type SessionKind, type SessionWithRows } from '../schema/catalog/sessions.ts';
import type { CatalogDatabase } from '../schema/catalog/connection.ts';
import { errorTable, isErrorCode, messageOf } from '../schema/domain/errors.ts';
import type { MaintenanceProgressView } from '../schema/domain/maintenance-sessions.ts';
import { queryNames, type RestoreProgressView, type VmProgress } from '../schema/domain/sessions.ts';
import type { SessionResult } from '../schema/domain/states.ts';
import { liveSteps, type MaintenanceSources } from './live-maintenance.ts';
import { liveRestore, liveVm, type RestoreSources, type VmSources, waitsOf } from './live-session.ts';
import type { LiveSession, LiveVm } from './output/progress.ts';
import { describeWorkflow, isUnanswered, soon, type WorkflowPicture } from './temporal-access.ts';

/** `name`: of the VM that comes back; only a restore has it. */
export type SessionTarget = { sessionId: string; workflowId: string; kind: SessionKind; name: string };
export type SessionEnd = { result: SessionResult; error: SessionError | null };
export type SessionPicture = {
  live: LiveSession;
  rows: SessionWithRows | null;
  runId: string | null;
  end: SessionEnd | null;
};

/** VMs asked for at each refresh: two calls each. The others keep what was known. */
const VMS_PER_REFRESH = 3;
const CATALOG_LIMIT_MS = 3000;
const UNKNOWN = 'Temporal does not know the session any more; it is closed as failed within a quarter of an hour';

/** What the session's own workflow says; a backup's is asked for nothing. */
type OwnSources = { progress: RestoreProgressView | MaintenanceProgressView | null; picture: WorkflowPicture | null };
const queries = {
  backup: null,
  restore: queryNames.restoreProgress,
  maintenance: queryNames.maintenanceProgress,
} as const satisfies Record<SessionKind, string | null>;

type VmRow = SessionWithRows['vms'][number];

function within<T>(limitMs: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${limitMs / 1000} s`)), limitMs);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

export class SessionView {
  readonly target: SessionTarget;
  readonly #db: CatalogDatabase;
  readonly #client: Client;
  readonly #vms = new Map<string, VmSources>();
  #rows: SessionWithRows | null = null;
  #own: OwnSources = { progress: null, picture: null };
  #next = 0;
  #areRowsFresh = false;
  #closedSeen = 0;
  #notices = new Set<string>();

  constructor(target: SessionTarget, db: CatalogDatabase, client: Client) {
    this.target = target;
    this.#db = db;
    this.#client = client;
  }

  /** Resolves when the session's workflow has closed; never when that could not be heard of. */
  async closed(): Promise<void> {
    try {
      await this.#client.workflow.getHandle(this.target.workflowId).result();
    } catch (error) {
      if (!(error instanceof WorkflowFailedError)) await new Promise<never>(() => undefined);
    }
  }

  async refresh(): Promise<SessionPicture> {
    this.#notices = new Set();
    await Promise.all([this.#readRows(), this.#describeSession()]);
    if (this.target.kind === 'backup') await this.#askVms();
    const end = await this.#findEnd();
    return { live: this.#live(end), rows: this.#rows, runId: this.#own.picture?.runId ?? null, end };
  }

  async #readRows(): Promise<void> {
    this.#areRowsFresh = false;
    try {
      this.#rows = (await within(CATALOG_LIMIT_MS, loadSession(this.#db, this.target.sessionId))) ?? this.#rows;
      this.#areRowsFresh = true;
    } catch {
      this.#notices.add('the catalog does not answer; the last known state is shown');
    }
  }

  async #describe(workflowId: string): Promise<WorkflowPicture | null> {
    try {
      const picture = await describeWorkflow(this.#client, workflowId);
      if (picture === null && workflowId === this.target.workflowId) this.#notices.add(UNKNOWN);
      return picture;
    } catch {
      this.#notices.add('Temporal does not answer; the last known state is shown');
      return null;
    }
  }

  async #ask<T>(workflowId: string, query: string): Promise<T | null> {
    try {
      return await soon(this.#client, () => this.#client.workflow.getHandle(workflowId).query<T>(query));
    } catch (error) {
      if (isUnanswered(error)) this.#notices.add('the control worker does not answer; the steps shown may be old');
      return null;
    }
  }

  async #describeSession(): Promise<void> {
    const { workflowId, kind } = this.target;
    const picture = (await this.#describe(workflowId)) ?? this.#own.picture;
    const query = queries[kind];
    // How far a maintenance came its last answer tells, also after its end.
    const isAsked = query !== null && (picture?.status === 'RUNNING' || kind === 'maintenance');
    const progress = isAsked ? await this.#ask<NonNullable<OwnSources['progress']>>(workflowId, query) : null;
    this.#own = { picture, progress: progress ?? this.#own.progress };
  }

  async #askVms(): Promise<void> {
    const inWork = (this.#rows?.vms ?? []).filter((vm) => vm.result === 'None' && vm.workflowId !== null);
    const count = Math.min(VMS_PER_REFRESH, inWork.length);
    const chosen = Array.from({ length: count }, (_, i) => inWork[(this.#next + i) % inWork.length]!);
    this.#next += count;
    await Promise.all(chosen.map((vm) => this.#askVm(vm)));
  }

  async #askVm({ vmId, workflowId }: VmRow): Promise<void> {
    const [picture, progress] = await Promise.all([
      this.#describe(workflowId!),
      this.#ask<VmProgress>(workflowId!, queryNames.vmProgress),
    ]);
    const known = this.#vms.get(vmId);
    // A new try is a new workflow: nothing of the earlier one counts.
    const before = known?.picture?.workflowId === workflowId ? known : { picture: null, progress: null };
    this.#vms.set(vmId, { picture: picture ?? before.picture, progress: progress ?? before.progress });
  }

  /** The rows say it; where the workflow is closed without a word in them, the workflow does. */
  async #findEnd(): Promise<SessionEnd | null> {
    if (this.#rows?.state === 'Stopped') return { result: this.#rows.result, error: this.#rows.error };
    const { picture } = this.#own;
    if (picture === null || picture.status === 'RUNNING') return null;
    // Rows that nobody could read say nothing; those read beside the description may be older.
    if (this.#areRowsFresh) this.#closedSeen += 1;
    if (this.#closedSeen < 2) return null;
    return { result: 'Failed', error: await this.#failureOf(picture) };
  }

  async #failureOf({ workflowId, status }: WorkflowPicture): Promise<SessionError> {
    const closed = `the workflow is closed (${status}) and the catalog does not know how it ended`;
    try {
      await soon(this.#client, () => this.#client.workflow.getHandle(workflowId).result());
    } catch (error) {
      for (let at: unknown = error; at instanceof Error; at = at.cause) {
        if (!(at instanceof ApplicationFailure) || !at.type || !isErrorCode(at.type)) continue;
        return { code: at.type, message: at.message, hint: errorTable[at.type].hint };
      }
      if (error instanceof WorkflowFailedError) {
        const message = `${closed}: ${messageOf(error.cause ?? error)}`;
        return { code: 'BUG', message, hint: errorTable.BUG.hint };
      }
    }
    return { code: 'BUG', message: closed, hint: errorTable.BUG.hint };
  }

  #live(end: SessionEnd | null): LiveSession {
    const nowMs = Date.now();
    return {
      kind: this.target.kind,
      sessionId: this.target.sessionId,
      state: end === null ? (this.#rows?.state ?? 'Starting') : 'Stopped',
      result: end?.result ?? this.#rows?.result ?? 'None',
      note: end === null && this.target.kind !== 'restore' ? this.#note(nowMs) : '',
      vms: this.#liveVms(nowMs),
      notices: [...this.#notices],
    };
  }

  #note(nowMs: number): string {
    const said = this.target.kind === 'maintenance' ? (this.#own.progress?.waitsFor ?? '') : '';
    return said === '' ? waitsOf(this.#own.picture, nowMs) : said;
  }

  #liveVms(nowMs: number): LiveVm[] {
    const rows = this.#rows;
    if (this.target.kind === 'maintenance') return liveSteps(this.#own as MaintenanceSources);
    if (rows === null) return [];
    if (this.target.kind === 'restore')
      return [liveRestore(rows, this.target.name, this.#own as RestoreSources, nowMs)];
    return rows.vms.map((vm) => liveVm(vm, this.#vms.get(vm.vmId) ?? { picture: null, progress: null }, nowMs));
  }
}
