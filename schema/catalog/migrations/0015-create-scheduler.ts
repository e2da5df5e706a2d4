import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0015-create-scheduler',
  statement: `
create table scheduler (
  scheduler_id int not null primary key,
  passes bigint not null
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
