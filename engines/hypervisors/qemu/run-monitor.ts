/** How the VM of a run is asked, also when it is not in the configuration any more. */
import { errorCodeOf } from '../../../schema/domain/errors.ts';
import { connectQmp } from '../../qmp/client.ts';
import type { Context } from './context.ts';
import type { Commands } from './qmp-shapes.ts';
import type { RunState } from './run-states.ts';

/**
 * The guest keeper's monitor, as long as it has the VM; then the VM's own, connected to for each command. VM_OFF: nobody
 * listens there. VM_NOT_FOUND: the keeper does not have the VM, and its monitor is not known.
 */
export function monitorOfRun(
  context: Context,
  { vm, monitorSocket }: Pick<RunState, 'vm' | 'monitorSocket'>,
): Commands {
  // A VM that was renamed has another id, and the keeper holds its monitor all the same.
  const onSocket = context.host.vms.find(({ qmp }) => qmp === monitorSocket);
  const kept = context.monitorOf(onSocket?.vmId ?? vm.vmId);
  const execute = async <T>(command: string, args?: Record<string, unknown>): Promise<T> => {
    try {
      return await kept.execute<T>(command, args);
    } catch (error) {
      const code = errorCodeOf(error);
      const isElsewhere = code === 'VM_NOT_FOUND' || (code === 'VM_OFF' && !onSocket);
      if (!isElsewhere || monitorSocket === undefined) throw error;
      return await executeOn(context, `vm ${vm.vmId}`, monitorSocket, command, args);
    }
  };
  return { execute };
}

/** Whether it was that the VM has no monitor here that answers: it is off, or not in the configuration. */
export function hasNoMonitor(error: unknown): boolean {
  const code = errorCodeOf(error);
  return code === 'VM_OFF' || code === 'VM_NOT_FOUND';
}

async function executeOn<T>(
  { seams: { clock } }: Context,
  owner: string,
  socket: string,
  command: string,
  args?: Record<string, unknown>,
): Promise<T> {
  const connection = await connectQmp({ socket, owner, now: () => clock.now() });
  try {
    return await connection.execute<T>(command, args);
  } finally {
    connection.close();
  }
}
