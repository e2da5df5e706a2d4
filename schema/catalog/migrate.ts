/** Brings a catalog to this version's tables. Several processes may start it at once: kysely's lock serialises them. */
import { CompiledQuery, Kysely, MysqlDialect } from 'kysely';
import { Migrator } from 'kysely/migration';
import { createPool } from 'mysql2';
import { createConnection } from 'mysql2/promise';
import { TidemarkError, messageOf } from '../domain/errors.ts';
import { driverOptions } from './connection.ts';
import type { CatalogConnection } from './connection.ts';
import { migrations } from './migrations/index.ts';
import type { Migration } from './migrations/migration.ts';

const failed = (connection: CatalogConnection, error: unknown): TidemarkError =>
  new TidemarkError(
    'DATABASE_ERROR',
    `migration of catalog ${connection.database} failed: ${messageOf(error)}`,
    { database: connection.database },
    error,
  );

/**
 * Creates the database when it is missing, applies what is missing in order; returns the names applied.
 * Doing it again does nothing. DATABASE_ERROR names the migration that failed; those before it stay applied.
 * `upTo` is for tests of older versions: how many migrations there were.
 */
export async function migrateCatalog(
  connection: CatalogConnection,
  upTo: number = migrations.length,
): Promise<{ applied: string[] }> {
  try {
    await createDatabase(connection);
  } catch (error) {
    throw failed(connection, error);
  }
  // One connection: the lock belongs to it.
  const pool = createPool({ ...driverOptions(connection), database: connection.database, connectionLimit: 1 });
  const db = new Kysely<{ scheduler: { scheduler_id: number; passes: number } }>({
    dialect: new MysqlDialect({ pool }),
  });
  try {
    const applied = await applyAll(db, migrations.slice(0, upTo));
    if (upTo >= migrations.length)
      await db.insertInto('scheduler').ignore().values({ scheduler_id: 1, passes: 0 }).execute();
    return { applied };
  } catch (error) {
    throw failed(connection, error);
  } finally {
    await db.destroy();
  }
}

async function createDatabase(connection: CatalogConnection): Promise<void> {
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(connection.database))
    throw new Error(`database name "${connection.database}" is not 1-64 of letters, digits, _ and -`);
  const admin = await createConnection(driverOptions(connection));
  try {
    const [found] = await admin.query('select 1 from information_schema.schemata where schema_name = ?', [
      connection.database,
    ]);
    // An account without the right to create databases may still migrate one that is there.
    if ((found as unknown[]).length === 0)
      await admin.query(
        `create database if not exists \`${connection.database}\` character set utf8mb4 collate utf8mb4_bin`,
      );
  } finally {
    await admin.end();
  }
}

async function applyAll<T>(db: Kysely<T>, list: readonly Migration[]): Promise<string[]> {
  const migrator = new Migrator({
    db,
    provider: {
      getMigrations: () =>
        Promise.resolve(
          Object.fromEntries(
            list.map((each) => [
              each.name,
              {
                up: async (inner: Kysely<unknown>) =>
                  void (await inner.executeQuery(CompiledQuery.raw(each.statement))),
              },
            ]),
          ),
        ),
    },
  });
  // It returns its error instead of throwing it.
  const { error, results } = await migrator.migrateToLatest();
  const culprit = results?.find((result) => result.status === 'Error');
  if (error !== undefined) {
    throw new Error(`${culprit ? `${culprit.migrationName}: ` : ''}${messageOf(error)}`, { cause: error });
  }
  return (results ?? []).filter((result) => result.status === 'Success').map((result) => result.migrationName);
}
