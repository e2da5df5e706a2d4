import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0020-create-repository-days',
  statement: `
create table repository_days (
  repository_id varchar(32) not null,
  day varchar(10) not null,
  free_bytes bigint not null,
  total_bytes bigint not null,
  restore_points int null,
  logical_bytes bigint null,
  deduplicated_bytes bigint null,
  stored_bytes bigint null,
  dead_bytes bigint null,
  trash_bytes bigint null,
  primary key (repository_id, day)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
