import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0027-add-machine-config',
  statement: `alter table machines add column config json null`,
};
