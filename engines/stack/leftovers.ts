/** What a killed supervisor, or the end of a stack, leaves running: found, verified, and ended in reverse order. */
import path from 'node:path';
import { stackLayout } from './layout.ts';
import { endProcess, findProcesses, type ProcessIdentity } from './process-identity.ts';
import { readStackFile, runningChildren } from './stack-file.ts';

const GRACE_MS = 20_000;
type Leftover = ProcessIdentity & { name: string };

/** Ends the children of the stack file, and servers that were started but not written down any more. Their names. */
export async function endLeftovers(stackFile: string): Promise<string[]> {
  const stack = readStackFile(stackFile);
  const recorded = stack === null ? [] : runningChildren(stack);
  const isServer = ({ name }: Leftover): boolean => name === 'database' || name === 'temporal';
  // Workers first, all at once: they may need the servers to end what they do.
  await endAll(recorded.filter((child) => !isServer(child)));
  const servers = new Map<number, Leftover>();
  for (const server of [...recorded.filter(isServer), ...serversOf(path.dirname(stackFile))])
    servers.set(server.pid, server);
  await endAll([...servers.values()]);
  return [...recorded.filter((child) => !isServer(child)), ...servers.values()].map(({ name }) => name);
}

const endAll = (processes: ProcessIdentity[]): Promise<unknown> =>
  Promise.all(processes.map((identity) => endProcess(identity, GRACE_MS)));

/**
 * Servers of this folder, by the data they were told to serve: a supervisor killed just after it started one had no
 * time to write it down, and two of them on the same data would be the worst. Workers end by themselves.
 */
function serversOf(stateFolder: string): Leftover[] {
  const { databaseFolder, temporalDatabase } = stackLayout(stateFolder);
  const databases = [databaseFolder, `${databaseFolder}.new`].map((folder) => [`--datadir=${folder}`]);
  // Exactly as we start them: whoever merely looks at the files is left alone.
  const found = (name: string, words: readonly string[]): Leftover[] =>
    findProcesses((command) => words.every((word) => command.includes(word))).map((one) => ({ ...one, name }));
  return [
    ...databases.flatMap((words) => found('database', words)),
    ...found('temporal', ['server', 'start-dev', '--db-filename', temporalDatabase]),
  ];
}

/**
 * Storage daemons outlive the workers that started them, so that sessions go on when a worker dies. With the stack they
 * end, since they hold disk images. Returns how many there were.
 */
export async function endStorageDaemons(stateFolder: string): Promise<number> {
  const ours = `TIDEMARK_STATE=${stateFolder}`;
  const daemons = findProcesses(
    ([program], environment) => path.basename(program ?? '') === 'qemu-storage-daemon' && environment.includes(ours),
  );
  await endAll(daemons);
  return daemons.length;
}
