/** Errors of the database driver in our words. */
import { errorCodeOf, messageOf, TidemarkError } from '../schema/domain/errors.ts';
import { withErrors } from './failures.ts';

/** DATABASE_ERROR for what the driver threw; everything else as it is. */
export function asCatalogError(error: unknown): unknown {
  const { code } = (error ?? {}) as { code?: unknown };
  if (errorCodeOf(error) !== undefined || typeof code !== 'string') return error;
  return new TidemarkError('DATABASE_ERROR', `the catalog refused: ${messageOf(error)} (${code})`, { code }, error);
}

/** What the driver throws becomes DATABASE_ERROR. */
export const withCatalogErrors = <A extends Record<string, (input: never) => Promise<unknown>>>(activities: A): A =>
  withErrors(activities, asCatalogError);
