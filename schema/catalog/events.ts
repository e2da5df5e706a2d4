/** The story of a session, line by line. */
import { sql } from 'kysely';
import type { CatalogDatabase } from './connection.ts';

export type SessionEvent = {
  sessionId: string;
  /** Unique within the session: a repeated record (an activity tried again) is one row. At most 64 characters. */
  eventKey: string;
  /** ISO 8601, UTC. */
  at: string;
  level: 'info' | 'warning' | 'error';
  code: string;
  message: string;
  vmId?: string;
  diskKey?: string;
};

export async function recordEvents(db: CatalogDatabase, events: readonly SessionEvent[]): Promise<void> {
  if (events.length === 0) return;
  await db
    .insertInto('session_events')
    .values(
      events.map((event) => ({
        session_id: event.sessionId,
        event_key: event.eventKey,
        at: new Date(event.at),
        level: event.level,
        code: event.code,
        message: event.message,
        vm_id: event.vmId ?? null,
        disk_key: event.diskKey ?? null,
      })),
    )
    .onDuplicateKeyUpdate({ event_key: sql`event_key` })
    .execute();
}

/** All of a session, in the order recorded: what a person is not shown they do not know of. */
export async function listEvents(
  db: CatalogDatabase,
  sessionId: string,
): Promise<(SessionEvent & { eventId: number })[]> {
  const rows = await db
    .selectFrom('session_events')
    .selectAll()
    .where('session_id', '=', sessionId)
    .orderBy('event_id')
    .execute();
  return rows.map((row) => ({
    eventId: row.event_id,
    sessionId,
    eventKey: row.event_key,
    at: row.at.toISOString(),
    level: row.level as SessionEvent['level'],
    code: row.code,
    message: row.message,
    ...(row.vm_id === null ? {} : { vmId: row.vm_id }),
    ...(row.disk_key === null ? {} : { diskKey: row.disk_key }),
  }));
}
