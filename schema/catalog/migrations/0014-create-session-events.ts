import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0014-create-session-events',
  statement: `
create table session_events (
  event_id bigint not null auto_increment primary key,
  session_id varchar(191) not null,
  event_key varchar(64) not null,
  at datetime(3) not null,
  level varchar(8) not null,
  code varchar(64) not null,
  message text not null,
  vm_id varchar(64) null,
  disk_key varchar(128) null,
  unique key once (session_id, event_key)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
