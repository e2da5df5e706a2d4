import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0001-create-machines',
  statement: `
create table machines (
  machine_id varchar(32) not null primary key,
  site_id varchar(6) not null,
  state varchar(16) not null,
  updated_at datetime(3) not null
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
