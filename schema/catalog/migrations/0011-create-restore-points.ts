import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0011-create-restore-points',
  statement: `
create table restore_points (
  restore_point_id varchar(32) not null primary key,
  repository_id varchar(32) not null,
  lineage varchar(16) not null,
  run_key varchar(12) not null,
  job_id varchar(32) not null,
  session_id varchar(191) not null,
  vm_id varchar(64) not null,
  vm_name varchar(255) not null,
  host_id varchar(32) not null,
  base_restore_point_id varchar(32) null,
  nominal_time datetime(3) not null,
  taken_at datetime(3) not null,
  sealed_at datetime(3) not null,
  consistency varchar(16) not null,
  suspect tinyint(1) not null default 0,
  size_bytes bigint not null default 0,
  read_bytes bigint not null default 0,
  sent_bytes bigint not null default 0,
  stored_bytes bigint not null default 0,
  manifest_digest varchar(64) not null,
  manifest json not null,
  key by_vm (vm_id, taken_at),
  key by_job (job_id, taken_at),
  key by_session (session_id),
  key by_repository (repository_id, sealed_at)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
