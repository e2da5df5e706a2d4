import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0025-add-disk-audit',
  statement: `
alter table session_disks
  add column audit json null`,
};
