import { spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { stackLayout } from '../../engines/stack/layout.ts';
import { rootFolder } from '../../setup/locate.mjs';

type Outcome = { exitCode: number | null; output: string; errors: string };
let state: string;

beforeAll(async () => {
  state = await mkdtemp(path.join(tmpdir(), 'tm-cli-'));
});
afterAll(() => rm(state, { recursive: true, force: true }));

/** As a person's shell runs it. */
function tidemark(...args: string[]): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const environment = { ...process.env, TIDEMARK_STATE: state };
    const child = spawn(path.join(rootFolder, 'cli/tidemark.mjs'), args, { env: environment });
    const outcome: Outcome = { exitCode: null, output: '', errors: '' };
    child.stdout.on('data', (data: Buffer) => (outcome.output += data.toString()));
    child.stderr.on('data', (data: Buffer) => (outcome.errors += data.toString()));
    child.once('error', reject);
    child.once('close', (exitCode) => resolve({ ...outcome, exitCode }));
  });
}

test('where nothing runs: status says so with a way out, down has nothing to do', async () => {
  const status = await tidemark('status');
  expect(status).toMatchObject({ exitCode: 4, output: '' });
  expect(status.errors).toMatch(/^error: no stack runs in .*\nhint: Start it with `tidemark up`\.\n$/);
  const json = await tidemark('status', '--json');
  expect(json.exitCode).toBe(4);
  expect(JSON.parse(json.output)).toMatchObject({ error: { code: 'STACK_NOT_RUNNING' } });
  expect(await tidemark('down')).toMatchObject({ exitCode: 0, output: `nothing runs in ${state}\n` });
});

test("files that a loss of power left empty are nobody's way in", async () => {
  const cut = path.join(state, 'cut');
  const { stackFile, portsFile } = stackLayout(cut);
  await mkdir(path.dirname(stackFile), { recursive: true, mode: 0o700 });
  for (const file of [stackFile, portsFile]) await writeFile(file, '');
  expect(await tidemark('status', '--state', cut)).toMatchObject({ exitCode: 4 });
  expect(await tidemark('down', '--state', cut)).toMatchObject({ exitCode: 0, output: `nothing runs in ${cut}\n` });
  const { findings } = JSON.parse((await tidemark('doctor', '--json', '--state', cut)).output) as {
    findings: { check: string; ok: boolean }[];
  };
  expect(findings.find(({ check }) => check === 'stack')).toMatchObject({ ok: true });
});

test('what is not understood ends with 2, and help that was asked for with 0', async () => {
  expect((await tidemark('frobnicate')).exitCode).toBe(2);
  const port = await tidemark('up', '--ui-port', '70000');
  expect(port.exitCode).toBe(2);
  expect(port.errors).toContain('a port is a number from 1 to 65535');
  const help = await tidemark('--help');
  expect(help.exitCode).toBe(0);
  expect(help.output).toContain('Exit codes: 0 done');
});

test('a state folder too long for sockets is refused with the reason', async () => {
  const long = path.join(state, 'x'.repeat(100));
  const refused = await tidemark('up', '--detach', '--state', long);
  expect(refused.exitCode).toBe(2);
  expect(refused.errors).toMatch(/bytes too long for the Unix sockets/);
});

test('doctor finds a state folder that others can read, and says what to do', async () => {
  const shared = path.join(state, 'shared');
  await mkdir(path.join(shared, 'run'), { recursive: true });
  await chmod(path.join(shared, 'run'), 0o755);
  const { exitCode, output } = await tidemark('doctor', '--json', '--state', shared);
  expect(exitCode).toBe(1);
  const { findings } = JSON.parse(output) as { findings: { check: string; ok: boolean; hint: string | null }[] };
  expect(findings.find(({ check }) => check === 'privacy')).toMatchObject({
    ok: false,
    hint: `chmod 700 '${path.join(shared, 'run')}'`,
  });
  expect(findings.find(({ check }) => check === 'stack')).toMatchObject({ ok: true });
});
