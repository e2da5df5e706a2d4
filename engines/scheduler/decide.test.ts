import { describe, expect, it } from 'vitest';
import { hostId, proxyId, repositoryId, runKeyOf, vmId } from '../../schema/domain/ids.ts';
import { requestOrders } from '../../schema/domain/scheduling.ts';
import type {
  ResourceDecision,
  ResourceRequest,
  ResourceState,
  ResourceWants,
} from '../../schema/domain/scheduling.ts';
import { decide, starvationMs } from './decide.ts';

const resource = (kind: ResourceState['kind'], id: string, limit: number, more: Partial<ResourceState> = {}) =>
  ({ kind, id, limit, used: 0, reachable: true, machineId: 'm1', ...more }) satisfies ResourceState;
const site = (): ResourceState[] => [
  resource('host', 'h1', 4),
  resource('proxy', 'p1', 4),
  resource('repository', 'main', 4),
];
function request(name: string, wants: Partial<ResourceWants> = {}, more: Partial<ResourceRequest> = {}) {
  const all: ResourceWants = {
    vmId: vmId(name),
    hostId: hostId('h1'),
    proxies: [],
    excludedProxies: [],
    repositoryId: repositoryId('main'),
    pairs: 1,
    ...wants,
  };
  return {
    workflowId: name,
    requestNumber: 0,
    runKey: runKeyOf(name),
    order: requestOrders.backup,
    manual: false,
    arrivedAt: 0,
    wants: all,
    ...more,
  } satisfies ResourceRequest;
}
const run = (resources: ResourceState[], requests: ResourceRequest[], nowMs = 1000): ResourceDecision =>
  decide({ nowMs, resources, requests });
const winners = (decision: ResourceDecision): string[] => decision.grants.map((grant) => grant.workflowId);
const proxiesOf = (decision: ResourceDecision): string[] =>
  decision.grants.flatMap((grant) => grant.leases.filter((lease) => lease.kind === 'proxy').map((lease) => lease.id));

describe('order', () => {
  it('serves by type, then scheduled before manual, then age', () => {
    const requests = [
      request('manual-old', {}, { manual: true, arrivedAt: 1 }),
      request('young', {}, { arrivedAt: 5 }),
      request('old', {}, { arrivedAt: 2 }),
      request('restore', {}, { order: requestOrders.restore, arrivedAt: 9 }),
    ];
    expect(winners(run(site(), requests))).toEqual(['restore', 'old', 'young', 'manual-old']);
  });

  it('tells each waiter its position and what it waits for', () => {
    const resources = [
      resource('host', 'h1', 9),
      resource('proxy', 'p1', 9),
      resource('repository', 'main', 4, { used: 4 }),
    ];
    const decision = run(resources, [request('a', {}, { arrivedAt: 1 }), request('b', {}, { arrivedAt: 2 })]);
    expect(decision.grants).toEqual([]);
    expect(decision.reasons.map((each) => each.reason.message)).toEqual([
      'position 1: repository main has 4 of 4 tasks',
      'position 2: repository main has 4 of 4 tasks',
    ]);
  });
});

describe('all or nothing', () => {
  it('takes the lock, a host slot and up to n pairs', () => {
    const decision = run(site(), [request('a', { pairs: 6 })]);
    const count = (kind: string) => decision.grants[0]!.leases.filter((lease) => lease.kind === kind).length;
    expect([count('vm'), count('host'), count('proxy'), count('repository')]).toEqual([1, 1, 4, 4]);
  });

  it('gives every request its first pair before any gets a second', () => {
    const decision = run(site(), [request('a', { pairs: 4 }), request('b', { pairs: 4 }), request('c', { pairs: 4 })]);
    const count = decision.grants.map((grant) => grant.leases.filter((lease) => lease.kind === 'proxy').length);
    expect(count).toEqual([2, 1, 1]);
  });

  it('grants one of two requests for the same VM', () => {
    const decision = run(site(), [request('a', { vmId: vmId('v') }), request('b', { vmId: vmId('v') })]);
    expect(winners(decision)).toEqual(['a']);
    expect(decision.reasons[0]!.reason).toEqual({
      code: 'vm-locked',
      message: 'position 1: VM v is in another session',
    });
  });

  it('gives nothing of a drained, silent or unknown resource', () => {
    const drained = [resource('host', 'h1', 4), resource('proxy', 'p1', 0), resource('repository', 'main', 4)];
    expect(run(drained, [request('a')]).reasons[0]!.reason.code).toBe('drained');
    const silent = [resource('host', 'h1', 4, { reachable: false }), ...site().slice(1)];
    expect(run(silent, [request('a')]).reasons[0]!.reason.code).toBe('unreachable');
    expect(run(site(), [request('a', { repositoryId: repositoryId('other') })]).reasons[0]!.reason.code).toBe(
      'unknown',
    );
  });

  it('takes a repository slot alone when no proxy is wanted', () => {
    const decision = run(site(), [request('m', { vmId: null, hostId: null, proxies: null })]);
    expect(decision.grants[0]!.leases).toEqual([{ kind: 'repository', id: 'main', pair: 0 }]);
  });
});

describe('placement', () => {
  const three = (): ResourceState[] => [
    resource('host', 'h1', 4),
    resource('proxy', 'far', 4, { machineId: 'm2' }),
    resource('proxy', 'home', 4, { used: 2 }),
    resource('proxy', 'busy', 4, { machineId: 'm3', used: 3 }),
    resource('repository', 'main', 9),
  ];

  it('prefers the proxy on the machine of the host, however loaded', () => {
    const decision = run(three(), [request('a')]);
    expect(proxiesOf(decision)).toEqual(['home']);
    expect(decision.grants[0]!.reason).toEqual({ code: 'on-host', message: 'proxy home: on the machine of host h1' });
  });

  it('else takes the least loaded of those named, never an excluded one', () => {
    const named = { proxies: [proxyId('far'), proxyId('busy')] };
    expect(proxiesOf(run(three(), [request('a', named)]))).toEqual(['far']);
    expect(proxiesOf(run(three(), [request('a', { ...named, excludedProxies: [proxyId('far')] })]))).toEqual(['busy']);
    const none = run(three(), [request('a', { ...named, excludedProxies: [proxyId('far'), proxyId('busy')] })]);
    expect(none.reasons[0]!.reason.message).toBe('position 1: every proxy was excluded');
  });

  it('stays near the host for a further pair', () => {
    const more = request('a', { vmId: null, hostId: null, nearHostId: hostId('h1') }, { requestNumber: 1 });
    expect(proxiesOf(run(three(), [more]))).toEqual(['home']);
  });
});

describe('a host that is read on its own machine only', () => {
  const two = (more: Partial<Record<'h1' | 'p1' | 'p2', Partial<ResourceState>>> = {}): ResourceState[] => [
    resource('host', 'h1', 4, { ownMachineOnly: true, ...more.h1 }),
    resource('host', 'h2', 4, { ownMachineOnly: true, machineId: 'm2' }),
    resource('proxy', 'p1', 2, more.p1),
    resource('proxy', 'p2', 8, { machineId: 'm2', ...more.p2 }),
    resource('repository', 'main', 9),
  ];
  const reasonOf = (decision: ResourceDecision) => decision.reasons[0]!.reason;

  it('takes no further pair from a proxy elsewhere', () => {
    expect(proxiesOf(run(two(), [request('a', { pairs: 4 })]))).toEqual(['p1', 'p1']);
    expect(proxiesOf(run(two({ h1: { ownMachineOnly: undefined } as never }), [request('a', { pairs: 4 })]))).toEqual([
      'p1',
      'p1',
      'p2',
      'p2',
    ]);
    const more = request('a', { vmId: null, hostId: null, nearHostId: hostId('h1'), pairs: 4 }, { requestNumber: 1 });
    expect(proxiesOf(run(two(), [more]))).toEqual(['p1', 'p1']);
  });

  it('waits for its own, full or silent, and says so', () => {
    expect(reasonOf(run(two({ p1: { used: 2 } }), [request('a')]))).toEqual({
      code: 'no-slot',
      message: 'position 1: proxy p1 has 2 of 2 tasks; host h1 is read on its own machine m1 only',
    });
    expect(reasonOf(run(two({ p1: { reachable: false } }), [request('a')]))).toEqual({
      code: 'unreachable',
      message: 'position 1: proxy p1 does not answer; host h1 is read on its own machine m1 only',
    });
    expect(reasonOf(run(two(), [request('a', { proxies: [proxyId('p2')] })]))).toEqual({
      code: 'no-proxy',
      message: 'position 1: host h1 is read on its own machine m1 only, and no proxy that may be used is there',
    });
  });

  it('takes the one on its machine of those a job names for several hosts', () => {
    const proxies = [proxyId('p1'), proxyId('p2')];
    const requests = [request('a', { proxies }), request('b', { proxies, hostId: hostId('h2') })];
    expect(proxiesOf(run(two(), requests))).toEqual(['p1', 'p2']);
  });

  it('takes the one on its machine where all are on one, as ever', () => {
    const one = [resource('host', 'h1', 4, { ownMachineOnly: true }), ...site().slice(1)];
    expect(run(one, [request('a', { pairs: 3 })])).toEqual(run(site(), [request('a', { pairs: 3 })]));
  });
});

describe('no starvation', () => {
  it('keeps a free slot for the first waiter against those behind it', () => {
    const resources = [
      resource('host', 'h1', 1),
      resource('proxy', 'p1', 9),
      resource('repository', 'full', 1, { used: 1 }),
      resource('repository', 'main', 9),
    ];
    const first = request('first', { repositoryId: repositoryId('full') }, { arrivedAt: 1 });
    const decision = run(resources, [first, request('second', {}, { arrivedAt: 2 })]);
    expect(decision.grants).toEqual([]);
    expect(decision.reasons[1]!.reason.message).toBe(
      'position 2: host h1 has 0 of 1 tasks, the rest is kept for an earlier request',
    );
  });

  it('keeps nothing for a waiter whose VM is locked', () => {
    const resources = [...site().map((each) => ({ ...each, limit: 1 })), resource('vm', 'v', 1, { used: 1 })];
    const decision = run(resources, [request('locked', { vmId: vmId('v') }), request('other', {}, { arrivedAt: 5 })]);
    expect(winners(decision)).toEqual(['other']);
  });

  it('serves a backup that waited long enough before restores that keep coming', () => {
    const resources = [resource('host', 'h1', 9), resource('proxy', 'p1', 9), resource('repository', 'main', 1)];
    const requests = [
      request('backup'),
      request('restore', {}, { order: requestOrders.restore, arrivedAt: starvationMs }),
    ];
    expect(winners(run(resources, requests, starvationMs - 1))).toEqual(['restore']);
    expect(winners(run(resources, requests, starvationMs))).toEqual(['backup']);
  });
});

/** Deterministic numbers in [0, 1) from a seed. */
function numbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

describe('over random histories', () => {
  const seed = Number(process.env['TIDEMARK_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

  it(`never grants more than there is, grants whole, and serves everyone (seed ${seed})`, () => {
    const next = numbers(seed);
    const pick = (count: number): number => Math.floor(next() * count);
    for (let history = 0; history < 40; history += 1) {
      const resources = [
        ...[0, 1].map((n) => resource('host', `h${n}`, 1 + pick(3), { machineId: `m${n}` })),
        ...[0, 1, 2].map((n) => resource('proxy', `p${n}`, 1 + pick(3), { machineId: `m${n}` })),
        ...[0, 1].map((n) => resource('repository', `r${n}`, 1 + pick(3), { machineId: 'm9' })),
      ];
      const requests = Array.from({ length: 30 }, (_, n) =>
        request(
          `w${n}`,
          {
            vmId: vmId(`v${pick(12)}`),
            hostId: hostId(`h${pick(2)}`),
            repositoryId: repositoryId(`r${pick(2)}`),
            pairs: 1 + pick(4),
            excludedProxies: pick(3) === 0 ? [proxyId(`p${pick(3)}`)] : [],
          },
          { order: [800, 300, 100][pick(3)]!, manual: pick(2) === 0, arrivedAt: pick(1000) },
        ),
      );
      let waiting = requests;
      let running: ResourceDecision['grants'] = [];
      for (let pass = 0; waiting.length > 0; pass += 1) {
        expect(pass, `seed ${seed}: still waiting ${waiting.map((each) => each.workflowId).join()}`).toBeLessThan(300);
        const inUse = running.flatMap((grant) => grant.leases);
        const usedOf = (kind: string, id: string): number =>
          inUse.filter((lease) => lease.kind === kind && lease.id === id).length;
        const locks = [...new Set(inUse.filter((lease) => lease.kind === 'vm').map((lease) => lease.id))];
        const now = [
          ...resources.map((each) => ({ ...each, used: usedOf(each.kind, each.id) })),
          ...locks.map((id) => resource('vm', id, 1, { used: 1 })),
        ];
        const decision = decide({ nowMs: 2000 + pass, resources: now, requests: waiting });
        running = [...running, ...decision.grants];
        const all = running.flatMap((grant) => grant.leases);
        for (const each of resources)
          expect(all.filter((lease) => lease.kind === each.kind && lease.id === each.id).length).toBeLessThanOrEqual(
            each.limit,
          );
        const vms = all.filter((lease) => lease.kind === 'vm').map((lease) => lease.id);
        expect(new Set(vms).size, `seed ${seed}: a VM locked twice`).toBe(vms.length);
        for (const grant of decision.grants) checkWhole(grant, requests);
        expect(decision.grants.length + decision.reasons.length).toBe(waiting.length);
        const won = new Set(winners(decision));
        waiting = waiting.filter((each) => !won.has(each.workflowId));
        // Somebody ends in each pass, so that there is always progress to be made.
        running = running.filter((_, index) => index !== 0 && next() > 0.3);
      }
    }
  });
});

function checkWhole(grant: ResourceDecision['grants'][number], requests: ResourceRequest[]): void {
  const { wants } = requests.find((each) => each.workflowId === grant.workflowId)!;
  const of = (kind: string): (typeof grant)['leases'] => grant.leases.filter((lease) => lease.kind === kind);
  expect(of('vm').map((lease) => lease.id)).toEqual([wants.vmId]);
  expect(of('host').map((lease) => lease.id)).toEqual([wants.hostId]);
  expect(of('proxy').length).toBe(of('repository').length);
  expect(of('proxy').length).toBeGreaterThan(0);
  expect(of('proxy').length).toBeLessThanOrEqual(wants.pairs);
  for (const lease of of('proxy')) expect(wants.excludedProxies).not.toContain(lease.id);
  for (const lease of of('repository')) expect(lease.id).toBe(wants.repositoryId);
}

describe('room in a repository', () => {
  const GIB = 2 ** 30;
  const withFree = (freeBytes: number, reservedBytes: number): ResourceState[] => [
    resource('host', 'h1', 9),
    resource('proxy', 'p1', 9),
    resource('repository', 'main', 9, { freeBytes, reservedBytes }),
  ];
  const wanting = (name: string, expectedBytes: number, arrivedAt = 0): ResourceRequest =>
    request(name, { expectedBytes }, { arrivedAt });

  it('is reserved when it is granted: those behind see what is left, and say so', () => {
    const decision = run(withFree(10 * GIB, 0), [
      wanting('a', 6 * GIB, 1),
      wanting('b', 5 * GIB, 2),
      wanting('c', 1, 3),
    ]);
    expect(winners(decision)).toEqual(['a']);
    expect(decision.reasons[0]!.reason).toEqual({
      code: 'no-space',
      message:
        'position 1: repository main has 10.0 GiB free, 6.0 GiB are reserved for sessions in work, and this one may need 5.0 GiB',
    });
    // What the first who waits lacks, nobody behind it takes away.
    expect(decision.reasons[1]!.reason.code).toBe('no-space');
  });

  it('counts what was reserved before, and lets through what fits beside it', () => {
    expect(winners(run(withFree(10 * GIB, 8 * GIB), [wanting('a', 2 * GIB)]))).toEqual(['a']);
    expect(winners(run(withFree(10 * GIB, 8 * GIB), [wanting('a', 2 * GIB + 1)]))).toEqual([]);
  });

  it('never keeps a session that has the repository to itself, nor one that asks for none', () => {
    expect(winners(run(withFree(0, 0), [wanting('a', 100 * GIB)]))).toEqual(['a']);
    expect(winners(run(withFree(0, 5), [request('restore', {})]))).toEqual(['restore']);
    expect(winners(run(site(), [wanting('a', 100 * GIB), wanting('b', 100 * GIB)]))).toEqual(['a', 'b']);
  });
});
