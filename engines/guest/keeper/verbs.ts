/** What the verbs of the protocol do. */
import type { createExecLedger } from './exec-ledger.ts';
import type { FreezeKeeper } from './freeze-keeper.ts';
import type { Kept, KeptVms, KeptWithAgent } from './kept-vms.ts';
import { badRequest, duration, optionalObject, run, text, texts, type Params } from './params.ts';
import { MAX_DEADLINE_MS, type GuestStatus, type VmState } from './protocol.ts';
import type { Rescuer } from './rescuer.ts';
import type { Caller, Handle } from './server.ts';

type Parts = {
  vms: KeptVms;
  freezes: FreezeKeeper;
  rescuer: Rescuer;
  scripts: ReturnType<typeof createExecLedger>;
};
const maxScriptMs = 3_600_000;

export function createVerbs({ vms, freezes, rescuer, scripts }: Parts): Handle {
  const stateOf = (vm: Kept): VmState => ({
    vmId: vm.vmId,
    monitor: vm.link.connected ? 'connected' : 'off',
    agent: vm.agent === undefined ? 'none' : vms.agentOf({ ...vm, agent: vm.agent }).connected ? 'connected' : 'idle',
    frozen: freezes.held(vm.vmId),
  });
  /** A frozen guest answers nothing but its status. */
  const status = async (vm: KeptWithAgent): Promise<GuestStatus> => {
    const agent = vms.agentOf(vm);
    if ((await agent.status()) === 'frozen') return { freeze: 'frozen', version: '', fileSystems: [] };
    return { freeze: 'thawed', version: (await agent.info()).version, fileSystems: await agent.fsinfo() };
  };
  const freeze = async (params: Params, { owner, closed }: Caller): Promise<{ fileSystems: number }> => {
    const vm = await vms.withAgent(params);
    const deadlineMs = duration(params, 'deadlineMs', MAX_DEADLINE_MS);
    if (closed.aborted) throw badRequest('the caller is gone');
    return { fileSystems: await freezes.freeze(vm, run(params), deadlineMs, owner) };
  };
  const exec = async (params: Params): Promise<unknown> => {
    const vm = await vms.withAgent(params);
    const timeoutMs = duration(params, 'timeoutMs', maxScriptMs);
    const program = { key: text(params, 'key'), path: text(params, 'path'), args: texts(params, 'args') };
    return await scripts.run({ vmId: vm.vmId, ...program, timeoutMs }, vms.agentOf(vm));
  };

  const verbs: Record<string, (params: Params, caller: Caller) => Promise<unknown>> = {
    ping: () => Promise.resolve({ pid: process.pid }),
    vms: () => Promise.resolve(vms.all().map(stateOf)),
    qmp: async (params) =>
      (await vms.find(params)).link.execute(text(params, 'command'), optionalObject(params, 'args')),
    freeze,
    isFrozen: async (params) => freezes.isFrozen(await vms.withAgent(params)),
    thaw: async (params) => freezes.thaw(await vms.withAgent(params), run(params)),
    exec,
    status: async (params) => status(await vms.withAgent(params)),
    rescues: async (params) => rescuer.rescues((await vms.find(params)).vmId),
  };
  return async (verb, params, caller) => {
    if (verb === 'events') return { result: {}, stream: await (await vms.find(params)).link.events(caller.closed) };
    const act = Object.hasOwn(verbs, verb) ? verbs[verb] : undefined;
    if (!act) throw badRequest(`the guest keeper knows no verb ${verb.slice(0, 40)}`);
    return { result: await act(params, caller) };
  };
}
