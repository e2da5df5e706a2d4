import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0024-add-restore-point-said',
  statement: `
alter table restore_points
  add column said_at datetime(3) null`,
};
