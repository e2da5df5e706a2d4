import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0007-create-virtual-machines',
  statement: `
create table virtual_machines (
  vm_id varchar(64) not null primary key,
  host_id varchar(32) not null,
  name varchar(255) not null,
  state varchar(16) not null,
  power varchar(16) null,
  disks json null,
  inspected_at datetime(3) null,
  updated_at datetime(3) not null,
  key by_host (host_id)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
