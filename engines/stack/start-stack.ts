/**
 * The embedded stack: database, Temporal, then (after the caller's migrations) the keeper and the workers, each
 * restarted when it dies, each change recorded in stack.json.
 */
import { chmod, mkdir, rm, stat } from 'node:fs/promises';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import { DATABASE_NAME, DATABASE_USER } from './database.ts';
import { assertSocketPathsFit, stackLayout, type StackLayout } from './layout.ts';
import { endLeftovers } from './leftovers.ts';
import { choosePorts, type StackPorts } from './ports.ts';
import type { StackConnections } from './stack-file.ts';
import { type Stack, type StackOptions, Supervisor } from './supervisor.ts';
import { takeStackLock } from './stack-lock.ts';
import { TEMPORAL_NAMESPACE } from './temporal-server.ts';

async function makeFolders(layout: StackLayout): Promise<void> {
  for (const folder of [layout.folder, layout.configFolder, layout.runFolder, layout.logFolder]) {
    await mkdir(folder, { recursive: true, mode: 0o700 });
  }
  // Made earlier by somebody with another umask, they would let others at sockets and the password.
  for (const folder of [layout.configFolder, layout.runFolder]) await chmod(folder, 0o700);
}

/** Files of two users in one folder lock both out, one by one; root as the second would do so unhindered. */
async function refuseForeign({ folder, databaseFolder }: StackLayout): Promise<void> {
  const uid = await stat(databaseFolder).then(
    (found) => found.uid,
    () => null,
  );
  const self = process.getuid?.();
  if (uid === null || uid === self) return;
  const message = `the stack in ${folder} is user ${uid}'s, and this is user ${self}: run it as that user, or name another folder`;
  throw new TidemarkError('BAD_CONFIG', message, { folder, uid });
}

function connectionsOf(layout: StackLayout, ports: StackPorts, hasCodec: boolean): StackConnections {
  return {
    temporal: {
      address: `127.0.0.1:${ports.temporal}`,
      uiUrl: `http://127.0.0.1:${ports.ui}/namespaces/${TEMPORAL_NAMESPACE}/workflows`,
      namespace: TEMPORAL_NAMESPACE,
      codecUrl: hasCodec ? `http://127.0.0.1:${ports.codec}` : null,
    },
    database: {
      socket: layout.databaseSocket,
      user: DATABASE_USER,
      passwordFile: layout.databasePasswordFile,
      name: DATABASE_NAME,
    },
  };
}

/**
 * STACK_RUNNING, BAD_CONFIG (folder too long, another user's), BAD_REQUEST (port taken), DATABASE_ERROR, UNREACHABLE (a
 * server that does not come up), STORAGE_ERROR (the state folder cannot be written).
 */
export async function startStack(options: StackOptions): Promise<Stack> {
  const layout = stackLayout(options.stateFolder);
  assertSocketPathsFit(layout);
  try {
    return await start(options, layout);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
    const message = `state folder ${layout.folder}: ${messageOf(error)}`;
    throw new TidemarkError('STORAGE_ERROR', message, { folder: layout.folder }, error);
  }
}

async function start(options: StackOptions, layout: StackLayout): Promise<Stack> {
  await refuseForeign(layout);
  await makeFolders(layout);
  const unlock = takeStackLock(layout.lockFile);
  try {
    const ended = await endLeftovers(layout.stackFile);
    if (ended.length > 0) options.log.warn('ended what an earlier stack left running', { children: ended });
    await rm(layout.databaseSocket, { force: true });
    const ports = await choosePorts(layout.portsFile, options.ports);
    const supervisor = new Supervisor(
      options,
      layout,
      ports,
      connectionsOf(layout, ports, options.hasPayloadCodec),
      unlock,
    );
    await supervisor.start();
    return supervisor;
  } catch (error) {
    unlock();
    throw error;
  }
}
