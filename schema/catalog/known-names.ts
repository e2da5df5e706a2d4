/** What the catalog has ever heard of: of the site, of sites before it, and of restore points from elsewhere. */
import type { NotNull } from 'kysely';
import type { CatalogDatabase } from './connection.ts';

export type NamedKind = 'VM' | 'job' | 'repository';

/** Each once. */
export async function listKnownNames(db: CatalogDatabase, kind: NamedKind): Promise<string[]> {
  const rows = await unionOf(db, kind).execute();
  return rows.map(({ name }) => name);
}

function unionOf(db: CatalogDatabase, kind: NamedKind) {
  const points = db.selectFrom('restore_points');
  if (kind === 'VM') return points.select('vm_name as name').union(db.selectFrom('virtual_machines').select('name'));
  if (kind === 'repository')
    return points.select('repository_id as name').union(db.selectFrom('repositories').select('repository_id as name'));
  const run = db.selectFrom('sessions').select('job_id as name').where('job_id', 'is not', null);
  return points
    .select('job_id as name')
    .union(db.selectFrom('jobs').select('job_id as name'))
    .union(run.$narrowType<{ name: NotNull }>());
}
