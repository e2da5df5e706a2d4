/** The VMs the keeper looks after, as the configuration has them: one monitor link each, one agent client per socket. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { vmId as toVmId, type VmId } from '../../../schema/domain/ids.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import { createGuestAgent, type GuestAgent } from '../agent/guest-agent.ts';
import { createMonitorLink, type MonitorLink, type OpenMonitor } from './monitor-link.ts';
import { text, type Params } from './params.ts';
import type { KeptVm } from './protocol.ts';
import type { Rescuer } from './rescuer.ts';

export type Kept = KeptVm & { link: MonitorLink };
export type KeptWithAgent = Kept & { agent: string };
export type KeptVms = {
  all(): Kept[];
  reload(): Promise<void>;
  /** VM_NOT_FOUND, after the configuration was read again. */
  find(params: Params): Promise<Kept>;
  /** GUEST_UNREACHABLE for a VM without an agent. */
  withAgent(params: Params): Promise<KeptWithAgent>;
  agentOf(vm: { vmId: VmId; agent: string }): GuestAgent;
  close(): void;
};

export function createKeptVms(
  loadVms: () => Promise<KeptVm[]>,
  openMonitor: OpenMonitor,
  rescuer: Rescuer,
  seams: Seams,
): KeptVms {
  const vms = new Map<VmId, Kept>();
  const agents = new Map<string, GuestAgent>();

  const reload = async (): Promise<void> => {
    const wanted = new Map((await loadVms()).map((vm) => [vm.vmId, vm]));
    for (const [id, kept] of vms) {
      const vm = wanted.get(id);
      if (vm && vm.qmp === kept.qmp && vm.agent === kept.agent && vm.site === kept.site) continue;
      kept.link.close();
      vms.delete(id);
    }
    for (const [id, vm] of wanted) {
      if (!vms.has(id)) vms.set(id, { ...vm, link: createMonitorLink(vm, openMonitor, rescuer, seams) });
    }
    letAgentsGo([...wanted.values()]);
  };
  /** An agent serves one client: one that is no longer ours is left to others. A thaw under way connects again. */
  const letAgentsGo = (wanted: KeptVm[]): void => {
    for (const [socket, agent] of agents) {
      if (wanted.some((vm) => vm.agent === socket)) continue;
      agent.close();
      agents.delete(socket);
    }
  };
  const find = async (params: Params): Promise<Kept> => {
    const id = toVmId(text(params, 'vm'));
    if (!vms.has(id)) await reload();
    const vm = vms.get(id);
    if (vm) return vm;
    throw new TidemarkError('VM_NOT_FOUND', `the guest keeper has no vm ${id} in its configuration`, { vm: id });
  };

  return {
    all: () => [...vms.values()],
    reload,
    find,
    withAgent: async (params) => {
      const { agent, ...vm } = await find(params);
      if (agent !== undefined) return { ...vm, agent };
      const message = `vm ${vm.vmId} has no guest agent socket in its configuration`;
      throw new TidemarkError('GUEST_UNREACHABLE', message, { vm: vm.vmId });
    },
    agentOf: (vm) => {
      const agent = agents.get(vm.agent) ?? createGuestAgent({ vmId: vm.vmId, socket: vm.agent }, seams);
      agents.set(vm.agent, agent);
      return agent;
    },
    close: () => {
      for (const vm of vms.values()) vm.link.close();
      for (const agent of agents.values()) agent.close();
    },
  };
}
