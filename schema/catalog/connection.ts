/** How the catalog is reached. Times are UTC on the wire; BIGINT is a number where that is exact, else text. */
import { Kysely, MysqlDialect } from 'kysely';
import { createPool } from 'mysql2';
import type { CatalogTables } from './tables.ts';

export type CatalogConnection = {
  /** Unix socket; else `host` and `port`. */
  socket?: string;
  host?: string;
  port?: number;
  user: string;
  password: string;
  database: string;
};
export type CatalogDatabase = Kysely<CatalogTables>;

/** Options of mysql2 without the database. */
export function driverOptions(connection: CatalogConnection) {
  const where =
    connection.socket === undefined
      ? { host: connection.host ?? '127.0.0.1', port: connection.port ?? 3306 }
      : { socketPath: connection.socket };
  return {
    ...where,
    user: connection.user,
    password: connection.password,
    timezone: 'Z',
    supportBigNumbers: true,
    bigNumberStrings: false,
    jsonStrings: true,
    charset: 'utf8mb4',
    connectTimeout: 10_000,
  };
}

/** A small pool; `destroy()` ends it. Opens nothing before the first query. */
export function connectCatalog(connection: CatalogConnection, poolSize = 8): CatalogDatabase {
  const pool = createPool({
    ...driverOptions(connection),
    database: connection.database,
    connectionLimit: poolSize,
    queueLimit: 1000,
    waitForConnections: true,
  });
  return new Kysely<CatalogTables>({ dialect: new MysqlDialect({ pool }) });
}
