import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0022-create-run-owners',
  statement: `
create table run_owners (
  run_key varchar(12) not null primary key,
  workflow_id varchar(255) not null,
  session_id varchar(191) not null,
  vm_id varchar(64) not null,
  started_at datetime(3) not null
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
