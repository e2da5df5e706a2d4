/** Registered with the namespace, all Keyword (the development server allows ten of a type). */
import { searchAttributeNames } from '../../schema/domain/sessions.ts';

export const searchAttributes: readonly string[] = Object.values(searchAttributeNames);
