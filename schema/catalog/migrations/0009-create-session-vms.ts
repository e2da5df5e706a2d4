import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0009-create-session-vms',
  statement: `
create table session_vms (
  session_id varchar(191) not null,
  vm_id varchar(64) not null,
  name varchar(255) not null,
  host_id varchar(32) not null,
  position int not null,
  attempt int not null,
  run_key varchar(12) null,
  workflow_id varchar(255) null,
  step varchar(32) not null,
  result varchar(16) not null,
  waits_for text null,
  error_code varchar(64) null,
  error_message text null,
  error_hint text null,
  restore_point_id varchar(32) null,
  consistency varchar(16) null,
  started_at datetime(3) null,
  ended_at datetime(3) null,
  primary key (session_id, vm_id),
  key by_run (run_key)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
