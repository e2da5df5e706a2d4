import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0010-create-session-disks',
  statement: `
create table session_disks (
  session_id varchar(191) not null,
  vm_id varchar(64) not null,
  disk_key varchar(128) not null,
  mode varchar(16) null,
  reason_code varchar(64) null,
  reason_message text null,
  proxy_id varchar(32) null,
  size_bytes bigint not null default 0,
  done_bytes bigint not null default 0,
  read_bytes bigint not null default 0,
  sent_bytes bigint not null default 0,
  stored_bytes bigint not null default 0,
  rate_bytes_per_second bigint null,
  waits_for varchar(255) null,
  conservation json null,
  started_at datetime(3) null,
  ended_at datetime(3) null,
  primary key (session_id, vm_id, disk_key)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
