/**
 * Who gets which slots: pure. Order is type, then scheduled before manual, then age. In that order each request gets its
 * minimum whole or nothing; what is left then goes, in the same order, to further pairs.
 *
 * Nobody starves: the first request that lacks only slots keeps the free ones it needs from those behind it, and one
 * that has waited `starvationMs` is served before all that have not, whatever their type.
 */
import type { Reason } from '../../schema/domain/hypervisor.ts';
import type {
  GrantedLease,
  ResourceDecision,
  ResourceGrant,
  ResourcePicture,
  ResourceRequest,
  WaitReason,
} from '../../schema/domain/scheduling.ts';
import { choosePair } from './placement.ts';
import { createRoom } from './room.ts';
import type { Room } from './room.ts';

/** After so long, age goes before type. Milliseconds. */
export const starvationMs = 30 * 60 * 1000;

export function decide(picture: ResourcePicture): ResourceDecision {
  const room = createRoom(picture.resources);
  const grants: ResourceGrant[] = [];
  const reasons: WaitReason[] = [];
  const granted: { request: ResourceRequest; grant: ResourceGrant }[] = [];
  let reserved = false;
  for (const request of orderRequests(picture.requests, picture.nowMs)) {
    const { workflowId, requestNumber } = request;
    const outcome = tryMinimum(room, request);
    if ('leases' in outcome) {
      const grant = { workflowId, requestNumber, ...outcome };
      grants.push(grant);
      granted.push({ request, grant });
      continue;
    }
    const position = reasons.length + 1;
    const message = `position ${position}: ${outcome.waits.message}`;
    reasons.push({ workflowId, requestNumber, position, reason: { code: outcome.waits.code, message } });
    // Only the first, and only when slots alone are missing: a lock or a dead machine may take hours.
    if (!reserved && outcome.onlySlots) {
      reserve(room, request);
      reserved = true;
    }
  }
  for (const each of granted) addPairs(room, each.request, each.grant);
  return { grants, reasons };
}

/** In order of service. */
export function orderRequests(requests: readonly ResourceRequest[], nowMs: number): ResourceRequest[] {
  const starved = (request: ResourceRequest): number => (nowMs - request.arrivedAt >= starvationMs ? 1 : 0);
  return [...requests].sort(
    (a, b) =>
      starved(b) - starved(a) ||
      (starved(a) ? 0 : b.order - a.order || Number(a.manual) - Number(b.manual)) ||
      a.arrivedAt - b.arrivedAt ||
      // Equal in all: by name, so that every process decides the same.
      (a.workflowId < b.workflowId ? -1 : a.workflowId > b.workflowId ? 1 : a.requestNumber - b.requestNumber),
  );
}

type Outcome = { leases: GrantedLease[]; reason: Reason } | { waits: Reason; onlySlots: boolean };

function tryMinimum(room: Room, request: ResourceRequest): Outcome {
  const { wants } = request;
  const leases: GrantedLease[] = [];
  const singles = [
    wants.vmId === null ? null : ({ kind: 'vm', id: wants.vmId } as const),
    wants.hostId === null ? null : ({ kind: 'host', id: wants.hostId } as const),
  ].filter((each) => each !== null);
  const lacks = singles.map((each) => room.lack(each)).filter((lack) => lack !== null);
  leases.push(...singles.map((each) => ({ ...each, pair: null })));
  const pair = choosePair(room, wants, 0);
  if ('lacks' in pair) lacks.push(...pair.lacks);
  else leases.push(...pair.leases);
  const { repositoryId, expectedBytes = 0 } = wants;
  const space = repositoryId === null ? null : room.lackOfSpace(repositoryId, expectedBytes);
  if (space) lacks.push(space);
  const worst = lacks.find((lack) => !lack.onlySlots) ?? lacks[0];
  if (worst || 'lacks' in pair) {
    const waits = worst?.reason ?? { code: 'no-capacity', message: 'no slot is free' };
    return { waits, onlySlots: lacks.every((lack) => lack.onlySlots) };
  }
  for (const lease of leases) room.take(lease);
  if (repositoryId !== null) room.reserveSpace(repositoryId, expectedBytes);
  return { leases, reason: pair.reason };
}

/** Keeps what is free of the request's minimum from everybody behind it in this pass. */
function reserve(room: Room, request: ResourceRequest): void {
  const { wants } = request;
  if (wants.hostId !== null) room.hold({ kind: 'host', id: wants.hostId });
  if (wants.repositoryId !== null) {
    room.hold({ kind: 'repository', id: wants.repositoryId });
    if (room.lackOfSpace(wants.repositoryId, wants.expectedBytes ?? 0)) room.holdSpace(wants.repositoryId);
  }
  const pair = choosePair(room, { ...wants, repositoryId: null }, 0);
  if ('leases' in pair) for (const lease of pair.leases) room.hold(lease);
}

function addPairs(room: Room, request: ResourceRequest, grant: ResourceGrant): void {
  const { wants } = request;
  if (wants.proxies === null && wants.repositoryId === null) return;
  for (let index = 1; index < wants.pairs; index += 1) {
    const pair = choosePair(room, wants, index);
    if ('lacks' in pair) return;
    for (const lease of pair.leases) room.take(lease);
    grant.leases.push(...pair.leases);
  }
}
