import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0006-create-job-vms',
  statement: `
create table job_vms (
  job_id varchar(32) not null,
  vm_id varchar(64) not null,
  position int not null,
  host_id varchar(32) not null,
  name varchar(255) not null,
  exclude_disks json not null,
  primary key (job_id, vm_id)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
