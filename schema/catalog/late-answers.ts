/** Answers of a repository come in any order: those that come too late change nothing. Times are of its host's clock. */
import { sql, type RawBuilder, type SqlBool } from 'kysely';

/** More than answers are ever apart: what was said so much later was said by a clock that has been set back since. */
const CLOCK_WAS_SET_MS = 86_400_000;
const clockWasSetAt = (asOf: Date): Date => new Date(asOf.getTime() + CLOCK_WAS_SET_MS);

/** Whether what was said at `saidAt` (null: never) is newer than an answer of `asOf`. */
export const isLate = (saidAt: Date | null, asOf: Date): boolean =>
  saidAt !== null && saidAt > asOf && saidAt < clockWasSetAt(asOf);

/** Rows for which an answer of `asOf` is not late. `column`: when what they hold was said. */
export const notLate = (column: 'said_at' | 'space_at', asOf: Date): RawBuilder<SqlBool> => {
  const saidAt = sql.ref(column);
  return sql<SqlBool>`(${saidAt} is null or ${saidAt} <= ${asOf} or ${saidAt} >= ${clockWasSetAt(asOf)})`;
};
