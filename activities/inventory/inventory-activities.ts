/** What a host's hypervisor says about its VMs; reads only. */
import type { HypervisorProvider } from '../../engines/hypervisors/provider.ts';
import type { VmSummary } from '../../schema/domain/hypervisor.ts';
import { beating } from '../beating.ts';
import type { HostActivities } from '../contract.ts';
import { translating } from '../failures.ts';

type InventoryActivities = Pick<HostActivities, 'listInventory' | 'inspectVm'>;

export function createInventoryActivities({ provider }: { provider: HypervisorProvider }): InventoryActivities {
  return translating({
    listInventory: () =>
      beating(async () => {
        const vms: VmSummary[] = [];
        for await (const vm of provider.listVms()) vms.push(vm);
        return vms;
      }),
    inspectVm: ({ vm }) => beating(() => provider.inspectVm(vm)),
  } satisfies InventoryActivities);
}
