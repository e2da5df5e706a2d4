/** The catalog for commands: through the stack's own socket and account. Loads the database driver: import it late. */
import { readFile } from 'node:fs/promises';
import type { StackFile } from '../engines/stack/stack-file.ts';
import { type CatalogDatabase, connectCatalog } from '../schema/catalog/connection.ts';
import { errorCodeOf, messageOf, TidemarkError } from '../schema/domain/errors.ts';
import { layoutOf, runningStack } from './stack-access.ts';

/** What a query fails with when the server is away; everything else is a mistake of ours. */
const awayCodes = new Set(['ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'PROTOCOL_CONNECTION_LOST']);

/** UNREACHABLE for a server that does not answer, DATABASE_ERROR for the rest; errors of ours as they are. */
export function catalogError(error: unknown, socket: string): unknown {
  if (errorCodeOf(error) !== undefined) return error;
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code !== 'string') return error;
  if (awayCodes.has(code) || code.startsWith('ER_SERVER_SHUTDOWN'))
    return new TidemarkError('UNREACHABLE', `the catalog does not answer at ${socket} (${code})`, { socket }, error);
  return new TidemarkError('DATABASE_ERROR', `the catalog refused: ${messageOf(error)}`, { socket, code }, error);
}

/** Opens nothing before the first query; `destroy()` ends it. */
export async function openCatalog({ database }: StackFile): Promise<CatalogDatabase> {
  const password = await readFile(database.passwordFile, 'utf8').catch((error: unknown) => {
    throw new TidemarkError('STORAGE_ERROR', `cannot read ${database.passwordFile}: ${messageOf(error)}`, {}, error);
  });
  return connectCatalog({ socket: database.socket, user: database.user, password, database: database.name }, 4);
}

/** STACK_NOT_RUNNING, UNREACHABLE (the database is away), DATABASE_ERROR, and what `work` throws. */
export async function withCatalog<T>(
  state: string | undefined,
  work: (db: CatalogDatabase, stack: StackFile) => Promise<T>,
): Promise<T> {
  const stack = runningStack(layoutOf(state));
  const db = await openCatalog(stack);
  try {
    return await work(db, stack);
  } catch (error) {
    throw catalogError(error, stack.database.socket);
  } finally {
    await db.destroy();
  }
}
