/**
 * The state folder of an embedded stack: every path below it, in one place.
 *
 *   stack.json             what runs: written by the supervisor, read by everybody
 *   stack.lock             who supervises
 *   ports.json             ports, kept over restarts
 *   config/                machine.json (what this machine runs), machines/ (what others do), security/ (certificates),
 *                          database-password, payload-keys; only the owner may read it
 *   run/                   sockets
 *   logs/                  one per child, and stack.log of a detached supervisor
 *   temporal.sqlite        Temporal's database
 *   database/              MariaDB's files
 *   host.<id>/             ledgers of a hypervisor host
 *   repository-index.<id>/ rebuildable index of a repository
 *   workflow-bundle/       workflow code as the control worker loads it; rebuilt when missing
 */
import path from 'node:path';
import { TidemarkError } from '../../schema/domain/errors.ts';

/** `sun_path` of Linux holds 108 bytes, the closing zero among them. */
const MAX_SOCKET_PATH_BYTES = 107;

export type StackLayout = {
  folder: string;
  stackFile: string;
  lockFile: string;
  portsFile: string;
  configFolder: string;
  machineFile: string;
  /** What another machine of the site runs; it fetches it from the control worker. */
  otherMachineFile(machineId: string): string;
  otherMachinesFolder: string;
  /** Where the control worker lets machines enrol, while it runs. */
  enrolmentFile: string;
  databasePasswordFile: string;
  /** Of what is encrypted before Temporal's server has it; absent: nothing is. */
  payloadKeysFile: string;
  runFolder: string;
  databaseSocket: string;
  logFolder: string;
  temporalDatabase: string;
  databaseFolder: string;
  logFile(child: string): string;
  hostFolder(hostId: string): string;
  repositoryIndexFolder(repositoryId: string): string;
  workflowBundleFolder: string;
};

export function stackLayout(stateFolder: string): StackLayout {
  const folder = path.resolve(stateFolder);
  const at = (...names: string[]): string => path.join(folder, ...names);
  return {
    folder,
    stackFile: at('stack.json'),
    lockFile: at('stack.lock'),
    portsFile: at('ports.json'),
    configFolder: at('config'),
    machineFile: at('config', 'machine.json'),
    otherMachineFile: (machineId) => at('config', 'machines', `${machineId}.json`),
    otherMachinesFolder: at('config', 'machines'),
    enrolmentFile: at('run', 'enrolment.json'),
    databasePasswordFile: at('config', 'database-password'),
    payloadKeysFile: at('config', 'payload-keys'),
    runFolder: at('run'),
    databaseSocket: at('run', 'database.sock'),
    logFolder: at('logs'),
    temporalDatabase: at('temporal.sqlite'),
    databaseFolder: at('database'),
    logFile: (child) => at('logs', `${child}.log`),
    hostFolder: (hostId) => at(`host.${hostId}`),
    repositoryIndexFolder: (repositoryId) => at(`repository-index.${repositoryId}`),
    workflowBundleFolder: at('workflow-bundle'),
  };
}

/** The longest: of a target lane of a repository whose name has all the 32 characters a name may have. */
const LONGEST_SOCKET_NAME = `target.${'x'.repeat(32)}.sock.99`;

/** BAD_CONFIG says by how much the folder is too long. */
export function assertSocketPathsFit(layout: StackLayout): void {
  const longest = Buffer.byteLength(path.join(layout.runFolder, LONGEST_SOCKET_NAME));
  if (longest <= MAX_SOCKET_PATH_BYTES) return;
  const excessBytes = longest - MAX_SOCKET_PATH_BYTES;
  throw new TidemarkError(
    'BAD_CONFIG',
    `state folder ${layout.folder} is ${excessBytes} bytes too long for the Unix sockets in it (limit 107 bytes); choose a shorter one`,
    { folder: layout.folder, excessBytes },
  );
}
