/** Which proxy: one on the host's own machine first, else the least loaded that answers; with its reason. */
import type { Reason } from '../../schema/domain/hypervisor.ts';
import type { GrantedLease, ResourceState, ResourceWants } from '../../schema/domain/scheduling.ts';
import type { Lack, Room } from './room.ts';

export type PairChoice = { leases: GrantedLease[]; reason: Reason } | { lacks: Lack[] };

/** One proxy slot and one repository slot, as far as wanted; takes nothing. */
export function choosePair(room: Room, wants: ResourceWants, pair: number): PairChoice {
  const leases: GrantedLease[] = [];
  const lacks: Lack[] = [];
  let reason: Reason = { code: 'no-proxy-needed', message: 'no proxy is needed' };
  if (wants.proxies !== null) {
    const choice = chooseProxy(room, wants);
    if ('lack' in choice) lacks.push(choice.lack);
    else {
      leases.push({ kind: 'proxy', id: choice.proxy.id, pair });
      reason = choice.reason;
    }
  }
  if (wants.repositoryId !== null) {
    const lack = room.lack({ kind: 'repository', id: wants.repositoryId });
    if (lack) lacks.push(lack);
    else leases.push({ kind: 'repository', id: wants.repositoryId, pair });
  }
  return lacks.length > 0 ? { lacks } : { leases, reason };
}

type ProxyChoice = { proxy: ResourceState; reason: Reason } | { lack: Lack };

function chooseProxy(room: Room, wants: ResourceWants): ProxyChoice {
  const named = new Set<string>(wants.proxies);
  const excluded = new Set<string>(wants.excludedProxies);
  const candidates = room.all('proxy').filter((each) => named.size === 0 || named.has(each.id));
  const allowed = candidates.filter((each) => !excluded.has(each.id));
  if (allowed.length === 0) {
    const message = candidates.length === 0 ? 'no proxy of the job is in the site' : 'every proxy was excluded';
    return { lack: { reason: { code: 'no-proxy', message }, onlySlots: false } };
  }
  const free = allowed.filter((each) => room.lack(each) === null);
  const near = wants.hostId ?? wants.nearHostId;
  const home = near === undefined ? undefined : room.stateOf({ kind: 'host', id: near })?.machineId;
  const load = (state: ResourceState): number => state.used / state.limit;
  const byLoad = (a: ResourceState, b: ResourceState): number => load(a) - load(b) || (a.id < b.id ? -1 : 1);
  const isHome = (each: ResourceState): boolean => each.machineId !== null && each.machineId === home;
  const onHost = free.filter(isHome).sort(byLoad)[0];
  if (onHost) {
    return {
      proxy: onHost,
      reason: { code: 'on-host', message: `proxy ${onHost.id}: on the machine of host ${near}` },
    };
  }
  const least = free.sort(byLoad)[0];
  if (least) {
    const message = `proxy ${least.id}: least loaded, ${least.used} of ${least.limit} tasks`;
    return { proxy: least, reason: { code: 'least-loaded', message } };
  }
  return { lack: noneFree(room, allowed) };
}

function noneFree(room: Room, allowed: ResourceState[]): Lack {
  const lacks = allowed.map((each) => room.lack(each)).filter((lack) => lack !== null);
  const messages = lacks.map((lack) => lack.reason.message);
  const shown = messages.slice(0, 3).join(', ') + (messages.length > 3 ? `, ${messages.length - 3} more` : '');
  const onlySlots = lacks.some((lack) => lack.onlySlots);
  return { reason: { code: onlySlots ? 'no-slot' : lacks[0]!.reason.code, message: shown }, onlySlots };
}
