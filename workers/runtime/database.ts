/** Where the catalog is: only the control worker is told. */
import { readFile } from 'node:fs/promises';
import type { CatalogConnection } from '../../schema/catalog/connection.ts';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import { requiredVariable } from './config.ts';

/** BAD_CONFIG when a variable or the password's file is missing. */
export async function catalogConnection(): Promise<CatalogConnection> {
  const passwordFile = requiredVariable('TIDEMARK_DATABASE_PASSWORD_FILE', "the file with the catalog's password");
  const password = await readFile(passwordFile, 'utf8').catch((error: unknown) => {
    throw new TidemarkError('BAD_CONFIG', `cannot read ${passwordFile}: ${messageOf(error)}`, { passwordFile }, error);
  });
  return {
    socket: requiredVariable('TIDEMARK_DATABASE_SOCKET', "the catalog's socket"),
    user: requiredVariable('TIDEMARK_DATABASE_USER', "the catalog's account"),
    database: requiredVariable('TIDEMARK_DATABASE_NAME', 'the catalog'),
    password: password.trim(),
  };
}
