import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0008-create-sessions',
  statement: `
create table sessions (
  session_id varchar(191) not null primary key,
  kind varchar(16) not null,
  job_id varchar(32) null,
  workflow_id varchar(255) not null,
  started_by varchar(16) not null,
  state varchar(16) not null,
  result varchar(16) not null,
  nominal_time datetime(3) not null,
  started_at datetime(3) not null,
  ended_at datetime(3) null,
  error_code varchar(64) null,
  error_message text null,
  error_hint text null,
  spec json null,
  key by_workflow (workflow_id),
  key by_job (job_id, started_at),
  key by_start (started_at)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
