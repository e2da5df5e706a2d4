/**
 * What Temporal starts by itself, as the site says: the janitor, and the maintenance of each repository. Kept up by the
 * control worker from the catalog, so that an `apply` needs no Temporal, and a Temporal that lost its memory gets them again.
 */
import {
  type Client,
  ScheduleAlreadyRunning,
  ScheduleNotFoundError,
  type ScheduleOptions,
  type ScheduleOptionsStartWorkflowAction,
} from '@temporalio/client';
import { defineSearchAttributeKey, TypedSearchAttributes } from '@temporalio/common';
import type { Workflow } from '@temporalio/workflow';
import type { ResourceRow } from '../../schema/catalog/resources.ts';
import type { MaintenanceConfig, RepositoryConfig } from '../../schema/domain/configuration.ts';
import { messageOf } from '../../schema/domain/errors.ts';
import { repositoryId, type RepositoryId } from '../../schema/domain/ids.ts';
import {
  JANITOR_ID,
  type JanitorInput,
  maintenanceScheduleId,
  nightlySteps,
  type RepositoryMaintenanceInput,
} from '../../schema/domain/maintenance-sessions.ts';
import { controlQueue } from '../../schema/domain/queues.ts';
import type { Log } from '../../schema/domain/seams.ts';
import { searchAttributeNames, workflowTypes } from '../../schema/domain/sessions.ts';

const JANITOR_INTERVAL = '5 min';
/** Text of what is not to be there. */
const NONE = JSON.stringify(null);
/** A server that was away for less makes up for what it missed, once. */
const CATCH_UP = '1 h';

type Wanted = ScheduleOptions<ScheduleOptionsStartWorkflowAction<Workflow>>;
const policies = { overlap: 'SKIP', catchupWindow: CATCH_UP } as const;

function janitorSchedule(): Wanted {
  const input: JanitorInput = { version: 1 };
  return {
    scheduleId: JANITOR_ID,
    spec: { intervals: [{ every: JANITOR_INTERVAL }] },
    policies,
    action: {
      type: 'startWorkflow',
      workflowType: workflowTypes.janitor,
      workflowId: JANITOR_ID,
      taskQueue: controlQueue,
      args: [input],
      staticSummary: 'Takes away what sessions have left behind',
    },
  };
}

function specOf({ when }: MaintenanceConfig): Wanted['spec'] {
  if ('everyMs' in when) return { intervals: [{ every: when.everyMs }] };
  const [hour, minute] = when.at.split(':').map(Number) as [number, number];
  return { calendars: [{ hour, minute }], timezone: when.timeZone };
}

function maintenanceSchedule(id: RepositoryId, config: MaintenanceConfig): Wanted {
  const check = { depth: 'full', vmId: null, restorePointId: null, ...config.verify } as const;
  const steps = [...nightlySteps];
  const input: RepositoryMaintenanceInput = {
    version: 1,
    sessionId: null,
    repositoryId: id,
    startedBy: 'schedule',
    steps,
    check,
    dryRun: false,
  };
  const repository = defineSearchAttributeKey(searchAttributeNames.repository, 'KEYWORD');
  return {
    scheduleId: maintenanceScheduleId(id),
    spec: specOf(config),
    policies,
    action: {
      type: 'startWorkflow',
      workflowType: workflowTypes.repositoryMaintenance,
      workflowId: maintenanceScheduleId(id),
      taskQueue: controlQueue,
      args: [input],
      staticSummary: `Maintenance of repository ${id}`,
      staticDetails: `Steps: ${steps.join(', ')}.`,
      typedSearchAttributes: new TypedSearchAttributes([{ key: repository, value: id }]),
    },
  };
}

/** By id; null: there is to be none. `rows`: all repositories the catalog knows, also those removed. */
export function wantedSchedules(rows: readonly ResourceRow[]): Map<string, Wanted | null> {
  const wanted = new Map<string, Wanted | null>();
  if (rows.length > 0) wanted.set(JANITOR_ID, janitorSchedule());
  for (const row of rows) {
    const id = repositoryId(row.id);
    const { maintenance } = row.config as RepositoryConfig;
    const isKept = row.state !== 'removed' && maintenance !== undefined;
    wanted.set(maintenanceScheduleId(id), isKept ? maintenanceSchedule(id, maintenance) : null);
  }
  return wanted;
}

/** Of what the client throws, which says no more itself than that it failed. */
const reasonOf = (error: unknown): string => {
  const { cause } = error as { cause?: unknown };
  return messageOf(cause ?? error);
};

export class ScheduleKeeper {
  readonly #client: Client;
  readonly #log: Log;
  /** What was stored last, as text. */
  readonly #kept = new Map<string, string>();
  /** Why the last try failed, by id. */
  readonly #failing = new Map<string, string>();

  constructor(client: Client, log: Log) {
    this.#client = client;
    this.#log = log;
  }

  /**
   * Makes, changes and removes what differs from the last time; all, the first time. One that fails keeps none of the others: it
   * is logged by its name, and tried again the next time.
   */
  async keep(rows: readonly ResourceRow[]): Promise<void> {
    for (const [id, wanted] of wantedSchedules(rows)) {
      const text = JSON.stringify(wanted);
      if (this.#kept.get(id) === text) continue;
      try {
        await (wanted === null ? this.#remove(id) : this.#store(wanted));
        this.#kept.set(id, text);
        this.#failing.delete(id);
      } catch (error) {
        this.#tell(id, reasonOf(error));
      }
    }
  }

  /** Those that are gone from Temporal, deleted there or lost with its memory, are made again the next time. */
  async lookAfter(): Promise<void> {
    for (const [id, text] of this.#kept) {
      if (text === NONE) continue;
      const isThere = await this.#isThere(id);
      // What was stored meanwhile is newer than the answer.
      if (isThere || this.#kept.get(id) !== text) continue;
      this.#kept.delete(id);
      this.#log.warn('a schedule is gone from Temporal and is made again', { schedule: id });
    }
  }

  async #isThere(id: string): Promise<boolean> {
    try {
      await this.#client.schedule.getHandle(id).describe();
      return true;
    } catch (error) {
      if (error instanceof ScheduleNotFoundError) return false;
      throw error;
    }
  }

  /** Loudly once, as long as it is the same. */
  #tell(schedule: string, error: string): void {
    const isKnown = this.#failing.get(schedule) === error;
    this.#failing.set(schedule, error);
    this.#log[isKnown ? 'debug' : 'warn']('keeping a schedule failed and is tried again', { schedule, error });
  }

  async #remove(id: string): Promise<void> {
    try {
      await this.#client.schedule.getHandle(id).delete();
    } catch (error) {
      if (!(error instanceof ScheduleNotFoundError)) throw error;
    }
  }

  /** A person's pause outlives a change. */
  async #store(wanted: Wanted): Promise<void> {
    try {
      await this.#client.schedule.create(wanted);
    } catch (error) {
      if (!(error instanceof ScheduleAlreadyRunning)) throw error;
      const { scheduleId, ...rest } = wanted;
      await this.#client.schedule.getHandle(scheduleId).update(({ state }) => ({ ...rest, state }));
    }
  }
}
