import type { Migration } from './migration.ts';

/** Where the time of a disk's transfer went, milliseconds by stage. */
export const migration: Migration = {
  name: '0026-add-disk-stages',
  statement: `alter table session_disks add column stages json null`,
};
