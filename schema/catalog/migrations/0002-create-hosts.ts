import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0002-create-hosts',
  statement: `
create table hosts (
  host_id varchar(32) not null primary key,
  provider varchar(16) not null,
  machine_id varchar(32) not null,
  slots int not null,
  state varchar(16) not null,
  reachable tinyint(1) not null default 1,
  seen_at datetime(3) null,
  config json not null,
  updated_at datetime(3) not null
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
