/** Renders the error table as its page for users. Run directly, it writes docs/errors.md. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { errorTable, type Disposition } from '../../schema/domain/errors.ts';

const meaning: Record<Disposition, string> = {
  'retry-here': 'tried again at the same place',
  'retry-elsewhere': 'tried again, elsewhere if possible',
  'new-base': 'tracking is lost: the disk is compared or read in full',
  operator: 'somebody must do something',
  damage: 'something stored is damaged',
  bug: 'should not happen',
};

export function errorsPage(): string {
  const rows = Object.entries(errorTable).map(([code, row]) => `| \`${code}\` | ${row.disposition} | ${row.hint} |`);
  const dispositions = Object.entries(meaning).map(([name, text]) => `- \`${name}\`: ${text}`);
  return [
    '# Errors',
    '',
    'Every error carries a code. The code says what Tidemark does by itself, the hint what you can do.',
    '',
    ...dispositions,
    '',
    '| code | disposition | what to do |',
    '|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

if (process.argv[1] === import.meta.filename) {
  writeFileSync(path.resolve(import.meta.dirname, '../../docs/errors.md'), errorsPage());
}
