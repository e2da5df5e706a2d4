import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0019-add-repository-figures',
  statement: `
alter table repositories
  add column total_bytes bigint null,
  add column space_at datetime(3) null,
  add column statistics json null,
  add column statistics_at datetime(3) null`,
};
