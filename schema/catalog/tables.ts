/**
 * The catalog's tables as kysely sees them. Times are DATETIME(3) in UTC; JSON columns hold objects and lists and
 * arrive as text (MariaDB keeps JSON as text, MySQL is told to send it so). No ENUM columns: old and new versions of
 * the software may share one catalog.
 */
import type { ColumnType, Generated } from 'kysely';

type Json = string;
/** TINYINT(1). */
type Flag = ColumnType<number, number | undefined, number>;
type Nullable<T> = ColumnType<T | null, T | null | undefined, T | null>;
/** BIGINT; sums of bytes stay below 2^53. */
type Bytes = ColumnType<number, number | undefined, number>;
export type ResourceRowState = 'active' | 'drained' | 'removed';

export type MachinesTable = {
  machine_id: string;
  site_id: string;
  state: ResourceRowState;
  /** Rules and bounds of the machine. */
  config: Nullable<Json>;
  updated_at: Date;
};
type ResourceColumns = {
  machine_id: string;
  slots: number;
  state: ResourceRowState;
  reachable: Flag;
  seen_at: Nullable<Date>;
  config: Json;
  updated_at: Date;
};
export type HostsTable = ResourceColumns & { host_id: string; provider: string };
export type ProxiesTable = ResourceColumns & { proxy_id: string };
export type RepositoriesTable = ResourceColumns & {
  repository_id: string;
  free_bytes: Nullable<number>;
  total_bytes: Nullable<number>;
  space_at: Nullable<Date>;
  statistics: Nullable<Json>;
  statistics_at: Nullable<Date>;
};
/** One row a day (UTC, "2026-11-25"), the day's last figures. */
export type RepositoryDaysTable = {
  repository_id: string;
  day: string;
  free_bytes: number;
  total_bytes: number;
  restore_points: Nullable<number>;
  logical_bytes: Nullable<number>;
  deduplicated_bytes: Nullable<number>;
  stored_bytes: Nullable<number>;
  dead_bytes: Nullable<number>;
  trash_bytes: Nullable<number>;
};
export type JobsTable = {
  job_id: string;
  repository_id: string;
  state: ResourceRowState;
  config: Json;
  updated_at: Date;
};
export type JobVmsTable = {
  job_id: string;
  vm_id: string;
  position: number;
  host_id: string;
  name: string;
  exclude_disks: Json;
};
/** `inspected_at` is the age of `power` and `disks`; null: never seen, only configured. */
export type VirtualMachinesTable = {
  vm_id: string;
  host_id: string;
  name: string;
  state: ResourceRowState;
  power: Nullable<string>;
  disks: Nullable<Json>;
  inspected_at: Nullable<Date>;
  updated_at: Date;
};
export type SessionsTable = {
  session_id: string;
  kind: string;
  job_id: Nullable<string>;
  /** Of a maintenance. */
  repository_id: Nullable<string>;
  workflow_id: string;
  started_by: string;
  state: string;
  result: string;
  nominal_time: Date;
  started_at: Date;
  ended_at: Nullable<Date>;
  error_code: Nullable<string>;
  error_message: Nullable<string>;
  error_hint: Nullable<string>;
  /** What was asked (restore target and the like). */
  spec: Nullable<Json>;
};
export type SessionVmsTable = {
  session_id: string;
  vm_id: string;
  name: string;
  host_id: string;
  position: number;
  attempt: number;
  run_key: Nullable<string>;
  workflow_id: Nullable<string>;
  step: string;
  result: string;
  waits_for: Nullable<string>;
  error_code: Nullable<string>;
  error_message: Nullable<string>;
  error_hint: Nullable<string>;
  restore_point_id: Nullable<string>;
  consistency: Nullable<string>;
  started_at: Nullable<Date>;
  ended_at: Nullable<Date>;
};
export type SessionDisksTable = {
  session_id: string;
  vm_id: string;
  disk_key: string;
  mode: Nullable<string>;
  reason_code: Nullable<string>;
  reason_message: Nullable<string>;
  proxy_id: Nullable<string>;
  size_bytes: Bytes;
  done_bytes: Bytes;
  read_bytes: Bytes;
  sent_bytes: Bytes;
  stored_bytes: Bytes;
  rate_bytes_per_second: Nullable<number>;
  waits_for: Nullable<string>;
  conservation: Nullable<Json>;
  audit: Nullable<Json>;
  stages: Nullable<Json>;
  started_at: Nullable<Date>;
  ended_at: Nullable<Date>;
};
export type RestorePointsTable = {
  restore_point_id: string;
  repository_id: string;
  lineage: string;
  run_key: string;
  job_id: string;
  session_id: string;
  vm_id: string;
  vm_name: string;
  host_id: string;
  base_restore_point_id: Nullable<string>;
  nominal_time: Date;
  taken_at: Date;
  sealed_at: Date;
  consistency: string;
  suspect: Flag;
  size_bytes: Bytes;
  read_bytes: Bytes;
  sent_bytes: Bytes;
  stored_bytes: Bytes;
  manifest_digest: string;
  manifest: Json;
  damaged: Flag;
  keep_always: Flag;
  hold_reason: Nullable<string>;
  mark_reason: Nullable<string>;
  locked_until: Nullable<Date>;
  /** Not null: it lies in the repository's trash, and no list shows it. */
  removed_at: Nullable<Date>;
  trashed_until: Nullable<Date>;
  /** When its repository said so, by the clock of its host: what it said earlier comes too late. */
  said_at: Nullable<Date>;
};
/** `exclusive_key` is unique where it is not null: one lease per VM, whatever the scheduler says. */
export type LeasesTable = {
  lease_id: Generated<number>;
  kind: string;
  resource_id: string;
  exclusive_key: Nullable<string>;
  workflow_id: string;
  request_number: number;
  run_key: string;
  units: number;
  pair: Nullable<number>;
  granted_at: Date;
};
export type ResourceRequestsTable = {
  workflow_id: string;
  request_number: number;
  run_key: string;
  type_order: number;
  manual: Flag;
  arrived_at: Date;
  wants: Json;
  state: 'waiting' | 'granted';
  position: Nullable<number>;
  reason_code: Nullable<string>;
  reason_message: Nullable<string>;
  granted_at: Nullable<Date>;
};
export type SessionEventsTable = {
  event_id: Generated<number>;
  session_id: string;
  /** Makes a repeated record the same row. */
  event_key: string;
  at: Date;
  level: string;
  code: string;
  message: string;
  vm_id: Nullable<string>;
  disk_key: Nullable<string>;
};
/** What the steps of a maintenance came to; a step may tell it in several parts. */
export type MaintenanceOutcomesTable = { session_id: string; step: string; part: number; at: Date; outcome: Json };
/** Whose a run key is: it is made from the workflow's id, and leads back to nothing. */
export type RunOwnersTable = {
  run_key: string;
  workflow_id: string;
  session_id: string;
  vm_id: string;
  started_at: Date;
};
/** VMs a job once had. */
export type AbsentVmsTable = { job_id: string; vm_id: string; since: Date };
/** One row: what grant passes of all processes lock. */
export type SchedulerTable = { scheduler_id: number; passes: number };

export type CatalogTables = {
  machines: MachinesTable;
  hosts: HostsTable;
  proxies: ProxiesTable;
  repositories: RepositoriesTable;
  jobs: JobsTable;
  job_vms: JobVmsTable;
  virtual_machines: VirtualMachinesTable;
  sessions: SessionsTable;
  session_vms: SessionVmsTable;
  session_disks: SessionDisksTable;
  restore_points: RestorePointsTable;
  leases: LeasesTable;
  resource_requests: ResourceRequestsTable;
  session_events: SessionEventsTable;
  scheduler: SchedulerTable;
  repository_days: RepositoryDaysTable;
  maintenance_outcomes: MaintenanceOutcomesTable;
  run_owners: RunOwnersTable;
  absent_vms: AbsentVmsTable;
};
