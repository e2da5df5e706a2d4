import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0005-create-jobs',
  statement: `
create table jobs (
  job_id varchar(32) not null primary key,
  repository_id varchar(32) not null,
  state varchar(16) not null,
  config json not null,
  updated_at datetime(3) not null
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
