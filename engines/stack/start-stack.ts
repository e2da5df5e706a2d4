/**
 * The embedded stack: database, Temporal, then (after the caller's migrations) the keeper and the workers, each
 * restarted when it dies, each change recorded in stack.json.
 */
import { chmod, mkdir, rm } from 'node:fs/promises';
import { DATABASE_NAME, DATABASE_USER, prepareDatabase } from './database.ts';
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

function connectionsOf(layout: StackLayout, ports: StackPorts): StackConnections {
  return {
    temporal: {
      address: `127.0.0.1:${ports.temporal}`,
      uiUrl: `http://127.0.0.1:${ports.ui}/namespaces/${TEMPORAL_NAMESPACE}/workflows`,
      namespace: TEMPORAL_NAMESPACE,
    },
    database: {
      socket: layout.databaseSocket,
      user: DATABASE_USER,
      passwordFile: layout.databasePasswordFile,
      name: DATABASE_NAME,
    },
  };
}

/** STACK_RUNNING, BAD_CONFIG (folder too long), BAD_REQUEST (port taken), DATABASE_ERROR, UNREACHABLE (a server that does not come up). */
export async function startStack(options: StackOptions): Promise<Stack> {
  const layout = stackLayout(options.stateFolder);
  assertSocketPathsFit(layout);
  await makeFolders(layout);
  const unlock = takeStackLock(layout.lockFile);
  try {
    const ended = await endLeftovers(layout.stackFile);
    if (ended.length > 0) options.log.warn('ended what an earlier stack left running', { children: ended });
    await rm(layout.databaseSocket, { force: true });
    const ports = await choosePorts(layout.portsFile, options.ports);
    await prepareDatabase(layout, options.tools);
    const supervisor = new Supervisor(options, layout, ports, connectionsOf(layout, ports), unlock);
    await supervisor.start();
    return supervisor;
  } catch (error) {
    unlock();
    throw error;
  }
}
