import type { Migration } from './migration.ts';

export const migration: Migration = {
  name: '0017-add-session-repository',
  statement: `
alter table sessions
  add column repository_id varchar(32) null,
  add key by_repository (repository_id, started_at)`,
};
