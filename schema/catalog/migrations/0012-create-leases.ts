import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0012-create-leases',
  statement: `
create table leases (
  lease_id bigint not null auto_increment primary key,
  kind varchar(16) not null,
  resource_id varchar(64) not null,
  exclusive_key varchar(96) null,
  workflow_id varchar(255) not null,
  request_number int not null,
  run_key varchar(12) not null,
  units int not null,
  pair int null,
  granted_at datetime(3) not null,
  unique key exclusive (exclusive_key),
  key by_workflow (workflow_id),
  key by_resource (kind, resource_id)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin`,
};
