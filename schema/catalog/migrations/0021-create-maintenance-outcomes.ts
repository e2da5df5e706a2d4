import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0021-create-maintenance-outcomes',
  statement: `
create table maintenance_outcomes (
  session_id varchar(191) not null,
  step varchar(16) not null,
  part int not null,
  at datetime(3) not null,
  outcome json not null,
  primary key (session_id, step, part)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
