/** Difference between two sites: pure, so that the catalog and a dry run say the same. */
import type { SiteChange, SiteConfig } from './configuration.ts';

type Things = Map<string, { kind: SiteChange['kind']; id: string; text: string }>;

/**
 * Machines, their security, enrolment and way to Temporal (id of the machine), hosts, VMs (id `host/name`), proxies, repositories and jobs that are new, different or gone, in this order
 * within the new site, what is gone last. `before` null: everything is added.
 */
export function diffSites(before: SiteConfig | null, after: SiteConfig): SiteChange[] {
  const [old, now] = [thingsOf(before), thingsOf(after)];
  const changes: SiteChange[] = [];
  for (const [key, thing] of now) {
    const was = old.get(key);
    if (was?.text === thing.text) continue;
    changes.push({ kind: thing.kind, id: thing.id, change: was === undefined ? 'added' : 'changed' });
  }
  for (const [key, thing] of old)
    if (!now.has(key)) changes.push({ kind: thing.kind, id: thing.id, change: 'removed' });
  return changes;
}

function thingsOf(site: SiteConfig | null): Things {
  const things: Things = new Map();
  const add = (kind: SiteChange['kind'], id: string, value: unknown): void =>
    void things.set(`${kind} ${id}`, { kind, id, text: canonical(value) });
  for (const machine of site?.machines ?? []) {
    const { site: name, networks = null, workers = null } = machine;
    add('machine', machine.machineId, { site: name, networks, workers });
    for (const kind of ['security', 'enrolment', 'temporal'] as const)
      if (machine[kind] !== undefined) add(kind, machine.machineId, machine[kind]);
    for (const { vms, ...host } of machine.hosts) {
      add('host', host.hostId, { ...host, on: machine.machineId });
      for (const vm of vms) add('vm', `${host.hostId}/${vm.name}`, vm);
    }
    for (const proxy of machine.proxies) add('proxy', proxy.proxyId, { ...proxy, on: machine.machineId });
    for (const each of machine.repositories) add('repository', each.repositoryId, { ...each, on: machine.machineId });
  }
  for (const job of site?.jobs ?? []) add('job', job.jobId, job);
  return things;
}

/** JSON with sorted keys: the same whatever order a database keeps them in. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    inner !== null && typeof inner === 'object' && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
