/** What the steps of a maintenance came to. */
import type { MaintenanceOutcome } from '../domain/maintenance-sessions.ts';
import type { CatalogDatabase } from './connection.ts';
import { fromJson, toJson } from './json.ts';

/** `part` from 0, of a step that tells it in several. Said again: replaces what was said. */
export async function recordOutcome(
  db: CatalogDatabase,
  of: { sessionId: string; part: number; outcome: MaintenanceOutcome; at: Date },
): Promise<void> {
  const said = { at: of.at, outcome: toJson(of.outcome) };
  await db
    .insertInto('maintenance_outcomes')
    .values({ session_id: of.sessionId, step: of.outcome.step, part: of.part, ...said })
    .onDuplicateKeyUpdate(said)
    .execute();
}

/** In the order they were told. */
export async function listOutcomes(db: CatalogDatabase, sessionId: string): Promise<MaintenanceOutcome[]> {
  const rows = await db
    .selectFrom('maintenance_outcomes')
    .select('outcome')
    .where('session_id', '=', sessionId)
    .orderBy('at')
    .orderBy('part')
    .execute();
  return rows.map((row) => fromJson<MaintenanceOutcome>(row.outcome));
}
