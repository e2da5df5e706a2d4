/** Commands of trust between machines, as far as they need no stack. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { rootFolder } from '../../setup/locate.mjs';

type Outcome = { code: number; output: string; errors: string };
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'td-mc-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const tidemark = (...args: string[]): Promise<Outcome> => tidemarkGiven('', ...args);
async function tidemarkGiven(input: string, ...args: string[]): Promise<Outcome> {
  const entry = path.join(rootFolder, 'cli/tidemark.ts');
  const env = { ...process.env, TIDEMARK_STATE: folder, TIDEMARK_ENROLL_TOKEN: '' };
  try {
    const running = promisify(execFile)(process.execPath, [entry, ...args], { env });
    running.child.stdin!.on('error', () => undefined).end(input);
    const { stdout, stderr } = await running;
    return { code: 0, output: stdout, errors: stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { code, output: stdout, errors: stderr };
  }
}

test('a site is made, a token given, machines listed and revoked; each mistake has a way out', async () => {
  const early = await tidemark('machine', 'token', 'm2', '--roles', 'proxy');
  expect(early).toMatchObject({ code: 2, output: '' });
  expect(early.errors).toMatch(
    /^error: there is no certificate authority in .*\nhint: On the machine of the stack run `tidemark site init`/,
  );
  const made = await tidemark('site', 'init', '--site', 'lab', '--machine', 'm1', '--json');
  expect(JSON.parse(made.output)).toMatchObject({ site: 'lab', machineId: 'm1', isNew: true });
  expect(JSON.parse((await tidemark('site', 'init', '--json')).output)).toMatchObject({ site: 'lab', isNew: false });
  expect((await tidemark('site', 'init', '--site', 'other')).code).toBe(2);
  const token = JSON.parse(
    (await tidemark('machine', 'token', 'm2', '--roles', 'host, proxy', '--json')).output,
  ) as object;
  expect(token).toMatchObject({ machineId: 'm2', roles: ['host', 'proxy'], url: null });
  const wrong = await tidemark('machine', 'token', 'm2', '--roles', 'control');
  expect(wrong).toMatchObject({ code: 2 });
  expect(wrong.errors).toContain('"control" is no role');
  const list = JSON.parse((await tidemark('machine', 'list', '--json')).output) as object;
  expect(list).toMatchObject({ site: 'lab', certificates: [{ machineId: 'm1', revokedAt: null }] });
  expect((await tidemark('machine', 'revoke', 'm2')).errors).toContain('machine m2 has no certificate that is valid');
  const own = await tidemark('machine', 'revoke', 'm1');
  expect(own).toMatchObject({ code: 2, output: '' });
  expect(own.errors).toMatch(/^error: machine m1 is the stack's own: without its certificate/);
  const after = JSON.parse((await tidemark('machine', 'list', '--json')).output) as object;
  expect(after).toMatchObject({ certificates: [{ machineId: 'm1', revokedAt: null }] });
  const here = await tidemark('host', 'enroll', '--site', 'https://127.0.0.1:1', '--token', 'x');
  expect(here.errors).toContain('needs no enrolment');
});

test('enrolling says what is missing or wrong before anything is made', async () => {
  const without = await tidemark('host', 'enroll', '--site', 'https://127.0.0.1:1');
  expect(without.errors).toContain('neither --token-file nor TIDEMARK_ENROLL_TOKEN has one');
  const bad = await tidemark('host', 'enroll', '--site', 'https://127.0.0.1:1', '--token', 'x', '--json');
  expect([bad.code, JSON.parse(bad.output)]).toMatchObject([2, { error: { code: 'ENROLL_REFUSED' } }]);
  const at = ['host', 'enroll', '--site', 'https://127.0.0.1:1', '--token-file'];
  expect((await tidemark(...at, path.join(folder, 'none'))).errors).toContain('there is no file');
  // Whoever is not there can only be found missing with a token that is one.
  const token = `${'a'.repeat(12)}.${'b'.repeat(32)}.${'c'.repeat(43)}\n`;
  await writeFile(path.join(folder, 'token'), token);
  expect((await tidemark(...at, path.join(folder, 'token'))).errors).toContain('https://127.0.0.1:1: ');
  expect((await tidemarkGiven(token, ...at, '-')).errors).toContain('https://127.0.0.1:1: ');
  const run = await tidemark('host', 'run');
  expect(run).toMatchObject({ code: 2 });
  expect(run.errors).toContain('no machine has enrolled');
});
