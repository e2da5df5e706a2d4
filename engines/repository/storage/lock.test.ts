import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { takeFileLock } from './lock.ts';

const NOBODY = 65_534;
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'td-lock-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));
const files = (): [string, string] => [path.join(folder, 'lock'), path.join(folder, 'owner')];

/** A process that becomes another user and takes the lock: 'taken', or the code of its error. */
function takenByNobody(): string {
  const source = `
    import { takeFileLock } from ${JSON.stringify(new URL('lock.ts', import.meta.url).href)};
    process.setgid(${NOBODY});
    process.setuid(${NOBODY});
    try {
      takeFileLock(...${JSON.stringify(files())});
      console.log('taken');
    } catch (error) {
      console.log(error.code, error.message);
    }`;
  return spawnSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' }).stdout.trim();
}

test('a second owner is refused, and the first one named, until it lets go', () => {
  const release = takeFileLock(...files());
  expect(() => takeFileLock(...files())).toThrow(`process ${process.pid} owns the repository ${folder}`);
  release();
  takeFileLock(...files())();
});

test.skipIf(process.getuid?.() !== 0)('a lock file that may only be read is no lock', () => {
  chownSync(folder, NOBODY, NOBODY);
  takeFileLock(...files())();
  chmodSync(files()[0], 0o644);
  expect(takenByNobody()).toMatch(/^STORAGE_ERROR .*lock/);
  chownSync(files()[0], NOBODY, NOBODY);
  expect(takenByNobody()).toBe('taken');
});
