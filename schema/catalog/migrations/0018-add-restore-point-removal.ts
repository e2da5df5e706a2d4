import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0018-add-restore-point-removal',
  statement: `
alter table restore_points
  add column mark_reason varchar(1024) null,
  add column locked_until datetime(3) null,
  add column removed_at datetime(3) null,
  add column trashed_until datetime(3) null`,
};
