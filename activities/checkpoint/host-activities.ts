/** The hypervisor verbs of one host: thin over its provider. */
import type { Freezer, HypervisorProvider } from '../../engines/hypervisors/provider.ts';
import type { VmSummary } from '../../schema/domain/hypervisor.ts';
import type { HostActivities } from '../contract.ts';
import { translating } from '../failures.ts';

/** `heartbeat` is said each 3 s while a verb with a heartbeat timeout runs. */
export type HostDependencies = { provider: HypervisorProvider; freezer: Freezer; heartbeat: () => void };

export function createHostActivities({ provider, freezer, heartbeat }: HostDependencies): HostActivities {
  const beating = async <T>(work: Promise<T>): Promise<T> => {
    const timer = setInterval(heartbeat, 3000);
    return await work.finally(() => clearInterval(timer));
  };
  return translating({
    listInventory: async () => {
      const vms: VmSummary[] = [];
      for await (const vm of provider.listVms()) vms.push(vm);
      return vms;
    },
    inspectVm: async ({ vm, base }) => ({
      facts: await provider.inspectVm(vm),
      verdicts: await provider.judgeBase(vm, base),
    }),
    createCheckpoint: (spec) => beating(provider.createCheckpoint(spec, freezer)),
    openAccess: ({ run, diskKey, reader }) => provider.openAccess(run, diskKey, reader),
    closeAccess: ({ run }) => beating(provider.closeAccess(run)),
    releaseCheckpoint: ({ run }) => beating(provider.releaseCheckpoint(run)),
    commitReferencePoint: ({ lineage, keep }) => beating(provider.commitReferencePoint(lineage, keep)),
    discardReferencePoint: ({ run }) => beating(provider.discardReferencePoint(run)),
  } satisfies HostActivities);
}
