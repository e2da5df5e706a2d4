/** Opens a QEMU monitor (QMP) for the keeper's own lasting use. QEMU serves one client per monitor socket. */
import type { Seams } from '../../../schema/domain/seams.ts';
import { connectQmp } from '../../qmp/client.ts';
import type { OpenMonitor } from './monitor-link.ts';

/** VM_OFF: nobody listens. PLATFORM_BUSY: somebody else is connected, or the VM hangs. */
export const openQmpMonitor =
  ({ clock }: Seams): OpenMonitor =>
  (vm, onEvent) =>
    connectQmp({
      socket: vm.qmp,
      owner: `vm ${vm.vmId}`,
      details: { vm: vm.vmId },
      now: () => clock.now(),
      onEvent,
    });
