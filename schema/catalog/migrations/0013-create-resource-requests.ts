import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0013-create-resource-requests',
  statement: `
create table resource_requests (
  workflow_id varchar(255) not null,
  request_number int not null,
  run_key varchar(12) not null,
  type_order int not null,
  manual tinyint(1) not null,
  arrived_at datetime(3) not null,
  wants json not null,
  state varchar(16) not null,
  position int null,
  reason_code varchar(64) null,
  reason_message text null,
  granted_at datetime(3) null,
  primary key (workflow_id, request_number),
  key by_state (state, arrived_at)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
