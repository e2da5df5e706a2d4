import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0016-add-restore-point-flags',
  statement: `
alter table restore_points
  add column damaged tinyint(1) not null default 0,
  add column keep_always tinyint(1) not null default 0,
  add column hold_reason varchar(1024) null,
  add key by_lineage (lineage, taken_at)`,
};
