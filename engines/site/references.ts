/**
 * What a shape cannot say: names that stand twice, names of things that are not there, sockets and folders that
 * collide. Works on the values as read, so that a wrong type elsewhere hides none of it.
 */
import { nearestName } from './nearest-name.ts';
import type { Finding, ValuePath } from './problems.ts';
import { describeValue, pathText } from './problems.ts';
import { normalPath } from './site-shape.ts';

type Things = { value: unknown; path: ValuePath }[];

const fieldOf = (value: unknown, key: string): unknown =>
  value !== null && typeof value === 'object' && Object.hasOwn(value, key) ? (value as never)[key] : undefined;
/** `value[key]`'s items with their paths; none when it is no list. */
function itemsOf({ value, path }: Things[number], key: string): Things {
  const list = fieldOf(value, key);
  return Array.isArray(list) ? list.map((item: unknown, i) => ({ value: item, path: [...path, key, i] })) : [];
}
const textOf = (value: unknown): string | null => (typeof value === 'string' ? value : null);
const nameOf = (thing: Things[number]): string | null => textOf(fieldOf(thing.value, 'name'));
const namesOf = (things: Things): string[] => things.map(nameOf).filter((name) => name !== null);

const MAX_NAMES_SHOWN = 8;
function notThere(kind: string, plural: string, found: string, known: string[]): string {
  if (known.length === 0) return `expected the name of ${kind}, but the site has no ${plural}`;
  const names = known.length > MAX_NAMES_SHOWN ? [...known.slice(0, MAX_NAMES_SHOWN), '...'] : known;
  const nearest = nearestName(found, known);
  const hint = nearest === null ? '' : `; did you mean ${JSON.stringify(nearest)}?`;
  return `expected the name of ${kind} (${names.join(', ')}), found ${describeValue(found)}${hint}`;
}

export function checkReferences(site: unknown): Finding[] {
  const root = { value: site, path: [] };
  const [hosts, proxies] = [itemsOf(root, 'hosts'), itemsOf(root, 'proxies')];
  const [repositories, jobs] = [itemsOf(root, 'repositories'), itemsOf(root, 'jobs')];
  const vms = hosts.flatMap((host) => itemsOf(host, 'vms').map((vm) => ({ ...vm, host })));
  return [
    ...[hosts, proxies, repositories, jobs].flatMap(repeatedNames),
    ...repeatedNames(itemsOf({ value: fieldOf(site, 'networks'), path: ['networks'] }, 'throttle')),
    ...hosts.flatMap((host) => repeatedNames(itemsOf(host, 'vms'))),
    ...repeatedNames(hosts.flatMap((host) => itemsOf(host, 'datastores'))),
    ...vms.flatMap((vm) => repeatedNames(itemsOf(vm, 'disks'))),
    ...repeatedValues(vms, ['uuid'], (value) => textOf(value)?.toLowerCase() ?? null),
    ...repeatedValues(vms, ['qmp', 'agent'], normalPath),
    ...collidingFolders(hosts, proxies, repositories),
    ...checkJobs(jobs, vms, namesOf(proxies), namesOf(repositories)),
    ...(isEmpty(fieldOf(site, 'proxies')) ? jobs.map(noProxy) : []),
  ];
}

const isEmpty = (list: unknown): boolean => list === undefined || (Array.isArray(list) && list.length === 0);
const noProxy = ({ path }: Things[number]): Finding => ({
  path,
  say: () => 'the site has no proxies, so that nothing could read the disks',
});

const repeatedNames = (things: Things): Finding[] => repeatedValues(things, ['name'], textOf);

function repeatedValues(things: Things, keys: string[], normal: (value: unknown) => string | null): Finding[] {
  const first = new Map<string, ValuePath>();
  const findings: Finding[] = [];
  for (const { value, path } of things) {
    for (const key of keys) {
      const text = normal(fieldOf(value, key));
      if (text === null) continue;
      const before = first.get(text);
      const at = [...path, key];
      if (before === undefined) first.set(text, at);
      else findings.push({ path: at, say: () => `${describeValue(text)} stands at ${pathText(before)} already` });
    }
  }
  return findings;
}

const isWithin = (inner: string, outer: string): boolean => inner === outer || inner.startsWith(`${outer}/`);
/** The shape refuses longer lists; these checks are quadratic. */
const MAX_COMPARED = 256;

/** A repository's folder is its own: no other repository, scratch or restored file in it, and no key of one. */
function collidingFolders(hosts: Things, proxies: Things, repositories: Things): Finding[] {
  const at = (folder: unknown, path: ValuePath) => ({ folder: normalPath(folder), path });
  const owned = repositories.map(({ value, path }) => at(fieldOf(value, 'folder'), [...path, 'folder']));
  const scratch = hosts.map(({ value, path }) =>
    at(fieldOf(fieldOf(value, 'scratch'), 'folder'), [...path, 'scratch', 'folder']),
  );
  const restore = proxies.flatMap((proxy) =>
    itemsOf(proxy, 'restoreFolders').map(({ value, path }) => at(value, path)),
  );
  const keys = repositories.flatMap(({ value, path }) =>
    ['passphraseFile', 'keyFile'].map((key) =>
      at(fieldOf(fieldOf(value, 'encryption'), key), [...path, 'encryption', key]),
    ),
  );
  const others = [...scratch, ...restore, ...keys].slice(0, MAX_COMPARED * 3);
  const findings: Finding[] = [];
  for (const [index, outer] of owned.slice(0, MAX_COMPARED).entries()) {
    const repositoriesAfter = owned.slice(index + 1, MAX_COMPARED);
    for (const inner of [...repositoriesAfter, ...others]) {
      if (outer.folder === null || inner.folder === null) continue;
      const isRepository = repositoriesAfter.includes(inner);
      if (!isWithin(inner.folder, outer.folder) && !(isRepository && isWithin(outer.folder, inner.folder))) continue;
      findings.push({
        path: inner.path,
        say: () =>
          `expected a ${keys.includes(inner) ? 'file outside of' : 'folder apart from'} the repository's at ${pathText(outer.path)}, found ${describeValue(inner.folder)}`,
      });
    }
  }
  return findings;
}

type KnownVm = Things[number] & { host: Things[number] };

/** By "host/name", and by name alone: null where several hosts have one of that name. */
export function indexVms<V>(
  vms: readonly { host: string | null; name: string | null; vm: V }[],
): Map<string, V | null> {
  const byName = new Map<string, V | null>();
  for (const { host, name, vm } of vms) {
    if (name === null) continue;
    if (host !== null) byName.set(`${host}/${name}`, vm);
    byName.set(name, byName.has(name) ? null : vm);
  }
  return byName;
}

function checkJobs(jobs: Things, vms: KnownVm[], proxyNames: string[], repositoryNames: string[]): Finding[] {
  const index = indexVms(vms.map((vm) => ({ host: nameOf(vm.host), name: nameOf(vm), vm })));
  const [knownProxies, knownRepositories] = [new Set(proxyNames), new Set(repositoryNames)];
  return jobs.flatMap((job) => {
    const findings = checkJobVms(job, index);
    const repository = textOf(fieldOf(job.value, 'repository'));
    if (repository !== null && !knownRepositories.has(repository)) {
      const say = (): string => notThere('a repository', 'repositories', repository, repositoryNames);
      findings.push({ path: [...job.path, 'repository'], say });
    }
    for (const { value, path } of itemsOf(job, 'proxies')) {
      const name = textOf(value);
      if (name === null || knownProxies.has(name)) continue;
      findings.push({ path, say: () => notThere('a proxy', 'proxies', name, proxyNames) });
    }
    return findings;
  });
}

function checkJobVms(job: Things[number], index: Map<string, KnownVm | null>): Finding[] {
  const findings: Finding[] = [];
  const taken = new Map<KnownVm, ValuePath>();
  const requires = fieldOf(job.value, 'consistency') === 'require';
  for (const { value, path } of itemsOf(job, 'vms')) {
    const name = textOf(value) ?? textOf(fieldOf(value, 'vm'));
    if (name === null) continue;
    const at = typeof value === 'string' ? path : [...path, 'vm'];
    const vm = index.get(name);
    if (vm === undefined) findings.push({ path: at, say: () => notThere('a VM', 'VMs', name, [...index.keys()]) });
    else if (vm === null)
      findings.push({ path: at, say: () => `several hosts have a VM ${describeValue(name)}: write host/name` });
    else {
      const before = taken.get(vm);
      if (before) findings.push({ path: at, say: () => `this VM stands at ${pathText(before)} already` });
      taken.set(vm, path);
      if (requires && !hasAgent(vm))
        findings.push({ path: at, say: () => 'the job has consistency require, but this VM has no guest agent' });
      findings.push(...checkExcluded({ value, path }, vm));
    }
  }
  return findings;
}

/** A simulated VM has what its test gives it. */
const hasAgent = (vm: KnownVm): boolean =>
  fieldOf(vm.value, 'agent') !== undefined || fieldOf(vm.host.value, 'provider') === 'simulated';

/** Disks of a QEMU VM need not be listed: then nothing is known of their names here. */
function checkExcluded(entry: Things[number], vm: KnownVm): Finding[] {
  const disks = itemsOf(vm, 'disks');
  const names = namesOf(disks);
  if (disks.length === 0) return [];
  return itemsOf(entry, 'excludeDisks').flatMap(({ value, path }) => {
    const name = textOf(value);
    if (name === null || names.includes(name)) return [];
    return [{ path, say: () => notThere('a disk of this VM', 'such disks', name, names) }];
  });
}
