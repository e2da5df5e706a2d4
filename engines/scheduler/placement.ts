/**
 * Which proxy: one on the host's own machine first, else the least loaded that answers and can read the host's disks;
 * with its reason.
 */
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
  const { near, home, mustBeHome } = readFrom(room, wants);
  const named = new Set<string>(wants.proxies);
  const excluded = new Set<string>(wants.excludedProxies);
  const candidates = room.all('proxy').filter((each) => named.size === 0 || named.has(each.id));
  const allowed = candidates.filter((each) => !excluded.has(each.id));
  if (candidates.length === 0) return noProxy('no proxy of the job is in the site');
  if (allowed.length === 0) return noProxy('every proxy was excluded');
  const isHome = (each: ResourceState): boolean => each.machineId !== null && each.machineId === home;
  const able = mustBeHome ? allowed.filter(isHome) : allowed;
  if (able.length === 0)
    return noProxy(`host ${near} is read on its own machine ${home} only, and no proxy that may be used is there`);
  const free = able.filter((each) => room.lack(each) === null).sort(byLoad);
  const onHost = free.find(isHome);
  if (onHost)
    return {
      proxy: onHost,
      reason: { code: 'on-host', message: `proxy ${onHost.id}: on the machine of host ${near}` },
    };
  const [least] = free;
  if (least) {
    const message = `proxy ${least.id}: least loaded, ${least.used} of ${least.limit} tasks`;
    return { proxy: least, reason: { code: 'least-loaded', message } };
  }
  const others = able.length < allowed.length ? `; host ${near} is read on its own machine ${home} only` : '';
  return { lack: noneFree(room, able, others) };
}

/** The host whose disks are read, and its machine; whether no proxy of another machine can read them. */
function readFrom(room: Room, { hostId, nearHostId }: ResourceWants) {
  const near = hostId ?? nearHostId;
  const host = near === undefined ? undefined : room.stateOf({ kind: 'host', id: near });
  return { near, home: host?.machineId, mustBeHome: host?.ownMachineOnly === true };
}

const noProxy = (message: string): ProxyChoice => ({
  lack: { reason: { code: 'no-proxy', message }, onlySlots: false },
});

const load = (state: ResourceState): number => state.used / state.limit;
const byLoad = (a: ResourceState, b: ResourceState): number => load(a) - load(b) || (a.id < b.id ? -1 : 1);

function noneFree(room: Room, able: ResourceState[], others: string): Lack {
  const lacks = able.map((each) => room.lack(each)).filter((lack) => lack !== null);
  const messages = lacks.map((lack) => lack.reason.message);
  const shown = messages.slice(0, 3).join(', ') + (messages.length > 3 ? `, ${messages.length - 3} more` : '');
  const onlySlots = lacks.some((lack) => lack.onlySlots);
  return { reason: { code: onlySlots ? 'no-slot' : lacks[0]!.reason.code, message: shown + others }, onlySlots };
}
