import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0025-add-machine-networks',
  statement: `alter table machines add column networks json null`,
};
