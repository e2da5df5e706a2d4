/** The error table and its page for users say the same. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { errorTable } from '../../schema/domain/errors.ts';
import { errorsPage } from './errors-page.ts';

test('docs/errors.md has every code of the table, with its disposition and hint', async () => {
  const page = await readFile(path.resolve(import.meta.dirname, '../../docs/errors.md'), 'utf8');
  expect(page, 'run `npm run docs:errors` after changing schema/domain/errors.ts').toBe(errorsPage());
});

test('hints are full sentences and messages of the table are unique', () => {
  const hints = Object.values(errorTable).map((row) => row.hint);
  for (const hint of hints) expect(hint).toMatch(/^[A-Z].*\.$/);
});
