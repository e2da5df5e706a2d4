/** What `tidemark doctor` looks at. Each finding is one line: fine, or a problem with the way out. */
import { access, constants, readFile, stat } from 'node:fs/promises';
import { Connection, WorkflowClient } from '@temporalio/client';
import { assertSocketPathsFit, type StackLayout } from '../engines/stack/layout.ts';
import { readKeptPorts } from '../engines/stack/ports.ts';
import { isSupervisorRunning, readStackFile, runningChildren, type StackFile } from '../engines/stack/stack-file.ts';
import { connectCatalog } from '../schema/catalog/connection.ts';
import { messageOf } from '../schema/domain/errors.ts';
import { locateMariadbShare, locateTool } from '../setup/locate.mjs';

/** `hint`: what to do about a problem; null when it is fine. */
export type Finding = { check: string; ok: boolean; message: string; hint: string | null };

const fine = (check: string, message: string): Finding => ({ check, ok: true, message, hint: null });
const problem = (check: string, message: string, hint: string): Finding => ({ check, ok: false, message, hint });
const SETUP_HINT = 'Run `npm run setup`, which installs it or says the exact command.';

export function checkTools(): Finding[] {
  const names = ['temporal', 'mariadbd', 'qemu-img', 'qemu-storage-daemon'];
  const found = names.map((name) => {
    const file = locateTool(name);
    return file === null ? problem(name, `${name} is not installed`, SETUP_HINT) : fine(name, file);
  });
  const share = locateMariadbShare();
  if (share === null) found.push(problem('mariadb files', "MariaDB's SQL files are not installed", SETUP_HINT));
  const [major, minor] = process.versions.node.split('.').map(Number);
  const isNew = major! > 24 || (major === 24 && minor! >= 12);
  const node = `Node ${process.versions.node}`;
  return [isNew ? fine('node', node) : problem('node', `${node} is older than 24.12`, SETUP_HINT), ...found];
}

async function checkRights(folder: string): Promise<Finding> {
  const hint = `Give it to the user that runs Tidemark: chown -R ${process.getuid?.() ?? ''} '${folder}'.`;
  try {
    await access(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    return fine('state folder', folder);
  } catch (error) {
    const isAbsent = (error as NodeJS.ErrnoException).code === 'ENOENT';
    if (isAbsent) return fine('state folder', `${folder} does not exist yet; \`tidemark up\` makes it`);
    return problem('state folder', messageOf(error), hint);
  }
}

/** Sockets and the password: nobody but the owner. */
async function checkPrivacy(layout: StackLayout): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const folder of [layout.configFolder, layout.runFolder]) {
    const mode = (await stat(folder).catch(() => null))?.mode;
    if (mode === undefined || (mode & 0o077) === 0) continue;
    const message = `${folder} can be read by others (mode ${(mode & 0o777).toString(8)})`;
    findings.push(problem('privacy', message, `chmod 700 '${folder}'`));
  }
  return findings;
}

export async function checkFolder(layout: StackLayout): Promise<Finding[]> {
  const findings = [await checkRights(layout.folder), ...(await checkPrivacy(layout))];
  try {
    assertSocketPathsFit(layout);
    findings.push(fine('socket paths', 'short enough'));
  } catch (error) {
    findings.push(problem('socket paths', messageOf(error), 'Name a shorter folder with --state or TIDEMARK_STATE.'));
  }
  return findings;
}

function checkChildren(stack: StackFile, layout: StackLayout): Finding[] {
  return stack.children.map(({ name, state, restarts, lastExit }) => {
    if (state === 'ready') return fine(name, restarts === 0 ? 'ready' : `ready, after ${restarts} restarts`);
    const message = `${name} is ${state}, ${restarts} restarts, last ${lastExit ?? 'still running'}`;
    return problem(name, message, `Read ${layout.logFile(name)}.`);
  });
}

export async function checkDatabase(database: StackFile['database'], layout: StackLayout): Promise<Finding> {
  const hint = `Read ${layout.logFile('database')}.`;
  try {
    const password = await readFile(database.passwordFile, 'utf8');
    const { socket, user, name } = database;
    const catalog = connectCatalog({ socket, user, password, database: name }, 1);
    try {
      await catalog.selectFrom('scheduler').select('scheduler_id').execute();
    } finally {
      await catalog.destroy();
    }
    return fine('catalog', `answers at ${socket}`);
  } catch (error) {
    return problem('catalog', `the catalog does not answer: ${messageOf(error)}`, hint);
  }
}

/** Bounds the look at running workflows: one request to the server for each. */
const WORKFLOWS_LOOKED_AT = 100;
/** A task tried again once may only have lost its worker; three times is code that throws. */
const FAILING_ATTEMPTS = 3;

/** A workflow whose code fails looks as if it waited; only its pending task's attempts tell. */
async function checkWorkflowTasks(client: WorkflowClient): Promise<Finding> {
  const failing: string[] = [];
  let count = 0;
  for await (const { workflowId, runId } of client.list({ query: 'ExecutionStatus = "Running"', pageSize: 100 })) {
    if (count >= WORKFLOWS_LOOKED_AT) break;
    count += 1;
    const { raw } = await client.getHandle(workflowId, runId).describe();
    if ((raw.pendingWorkflowTask?.attempt ?? 0) >= FAILING_ATTEMPTS) failing.push(workflowId);
  }
  if (failing.length === 0) return fine('workflow tasks', `none fails of ${count} running workflows`);
  const hint = "The code of these workflows throws; read the log of control, and the history in Temporal's UI.";
  return problem('workflow tasks', `failing: ${failing.join(', ')}`, hint);
}

export async function checkTemporal(temporal: StackFile['temporal'], layout: StackLayout): Promise<Finding[]> {
  const { address, namespace } = temporal;
  try {
    const connection = await Connection.connect({ address, connectTimeout: 5000 });
    try {
      await connection.withDeadline(Date.now() + 5000, () =>
        connection.workflowService.describeNamespace({ namespace }),
      );
      const client = new WorkflowClient({ connection, namespace });
      return [fine('temporal', `answers at ${address}`), await checkWorkflowTasks(client)];
    } finally {
      await connection.close();
    }
  } catch (error) {
    const hint = `Read ${layout.logFile('temporal')}.`;
    return [problem('temporal', `${address} does not answer as it should: ${messageOf(error)}`, hint)];
  }
}

/** What runs, and whether it answers. Nothing running is no problem; half of it is. */
export async function checkStack(layout: StackLayout): Promise<Finding[]> {
  const stack = readStackFile(layout.stackFile);
  if (stack !== null && isSupervisorRunning(stack)) {
    const servers = [await checkDatabase(stack.database, layout), ...(await checkTemporal(stack.temporal, layout))];
    return [fine('stack', `runs, pid ${stack.pid}`), ...checkChildren(stack, layout), ...servers];
  }
  const left = stack === null ? [] : runningChildren(stack);
  if (left.length === 0) return [fine('stack', 'does not run; `tidemark up` starts it')];
  const names = left.map(({ name, pid }) => `${name} (pid ${pid})`).join(', ');
  return [
    problem('stack', `the supervisor was killed and left running: ${names}`, 'Run `tidemark down` or `tidemark up`.'),
  ];
}

/** Ports a stopped stack will want again: somebody else on one of them is worth knowing before the start. */
export async function checkPorts(
  layout: StackLayout,
  probe: (port: number) => Promise<number | null>,
): Promise<Finding[]> {
  const stack = readStackFile(layout.stackFile);
  if (stack !== null && (isSupervisorRunning(stack) || runningChildren(stack).length > 0)) return [];
  const findings: Finding[] = [];
  for (const [name, port] of Object.entries(readKeptPorts(layout.portsFile))) {
    const isFree = (await probe(port)) !== null;
    const hint = `Nothing is to be done: \`tidemark up\` takes another; or free it, to keep the address.`;
    findings.push(
      isFree ? fine(`port ${name}`, `${port} is free`) : problem(`port ${name}`, `${port} is in use`, hint),
    );
  }
  return findings;
}
