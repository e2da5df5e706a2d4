import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { loadWorkflowBundle } from './workflow-bundle.ts';

test('the bundle is made once, kept alone under the digest of its sources, and read from there', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'td-wb-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  await writeFile(path.join(folder, `${'0'.repeat(32)}.js`), 'of an older version');
  const { log } = testSeams();
  const code = await loadWorkflowBundle(folder, log);
  expect(code).toContain('backupSession');
  const [name, ...others] = await readdir(folder);
  expect(others).toEqual([]);
  expect(await readFile(path.join(folder, name!), 'utf8')).toBe(code);
  await writeFile(path.join(folder, name!), 'the kept one');
  expect(await loadWorkflowBundle(folder, log)).toBe('the kept one');
}, 60_000);

test('a folder that cannot be written only costs time', async () => {
  const { log } = testSeams();
  expect(await loadWorkflowBundle(path.join(import.meta.filename, 'below a file'), log)).toContain('vmBackup');
}, 60_000);
