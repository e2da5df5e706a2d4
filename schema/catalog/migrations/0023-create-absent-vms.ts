import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0023-create-absent-vms',
  statement: `
create table absent_vms (
  job_id varchar(32) not null,
  vm_id varchar(64) not null,
  since datetime(3) not null,
  primary key (job_id, vm_id)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
