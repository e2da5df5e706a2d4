/**
 * Branded identifiers. A string of one brand is never passed where another is meant.
 * Words as in docs/glossary: one name per thing, everywhere.
 */
declare const brand: unique symbol;
export type Branded<B extends string> = string & { readonly [brand]: B };

/** Installation; 1-6 characters of [a-z0-9]: it is part of every artifact's name. */
export type SiteId = Branded<'SiteId'>;
export type MachineId = Branded<'MachineId'>;
export type HostId = Branded<'HostId'>;
export type ProxyId = Branded<'ProxyId'>;
export type RepositoryId = Branded<'RepositoryId'>;
export type JobId = Branded<'JobId'>;
export type SessionId = Branded<'SessionId'>;
/** UUID of a VM, for its life. */
export type VmId = Branded<'VmId'>;
/** Name of a disk within its VM, stable over sessions (QEMU: node name). */
export type DiskKey = Branded<'DiskKey'>;
/** 12 characters of [a-z0-9]: one `vmBackup` or restore attempt; idempotency key of every verb. */
export type RunKey = Branded<'RunKey'>;
/** Job + VM + repository: owner of one chain of bases; 16 hex digits. */
export type LineageId = Branded<'LineageId'>;
/** 128 random bits, 32 hex digits. */
export type RestorePointId = Branded<'RestorePointId'>;
/** Platform-independent kinds of what we make outside us. */
export type ArtifactKind = 'bm' | 'job' | 'exp' | 'flc' | 'cbw' | 'nbd' | 'qsd';

const shortName = /^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/;

/** Names a person gives to hosts, proxies, repositories, jobs: 1-32 of [a-z0-9-]. */
export const isShortName = (text: string): boolean => shortName.test(text);
export const isSiteId = (text: string): boolean => /^[a-z0-9]{1,6}$/.test(text);
export const isRunKey = (text: string): boolean => /^[a-z0-9]{12}$/.test(text);

export const siteId = (text: string): SiteId => text as SiteId;
export const machineId = (text: string): MachineId => text as MachineId;
export const hostId = (text: string): HostId => text as HostId;
export const proxyId = (text: string): ProxyId => text as ProxyId;
export const repositoryId = (text: string): RepositoryId => text as RepositoryId;
export const jobId = (text: string): JobId => text as JobId;
export const sessionId = (text: string): SessionId => text as SessionId;
export const vmId = (text: string): VmId => text as VmId;
export const diskKey = (text: string): DiskKey => text as DiskKey;
export const runKey = (text: string): RunKey => text as RunKey;
export const lineageId = (text: string): LineageId => text as LineageId;
export const restorePointId = (text: string): RestorePointId => text as RestorePointId;

/**
 * 64-bit FNV-1a with a final mix (MurmurHash3's fmix64). Not for security: it names things.
 * Pure arithmetic because workflows, which have no node:crypto, need it.
 */
function hash64(text: string): bigint {
  const mask = 0xffff_ffff_ffff_ffffn;
  let hash = 0xcbf2_9ce4_8422_2325n;
  for (const byte of utf8(text)) hash = ((hash ^ BigInt(byte)) * 0x0100_0000_01b3n) & mask;
  hash = ((hash ^ (hash >> 33n)) * 0xff51_afd7_ed55_8ccdn) & mask;
  hash = ((hash ^ (hash >> 33n)) * 0xc4ce_b9fe_1a85_ec53n) & mask;
  return hash ^ (hash >> 33n);
}

function* utf8(text: string): Generator<number> {
  for (const escaped of encodeURIComponent(text).matchAll(/%([0-9A-F]{2})|(.)/g)) {
    yield escaped[1] === undefined ? escaped[2]!.charCodeAt(0) : Number.parseInt(escaped[1], 16);
  }
}

/** Run key of a workflow: derived from its id, so it survives a reset of the workflow. */
export function runKeyOf(workflowId: string): RunKey {
  const digits = '0123456789abcdefghijklmnopqrstuvwxyz';
  let rest = hash64(`run ${workflowId}`);
  let text = '';
  while (text.length < 12) {
    text += digits[Number(rest % 36n)];
    rest /= 36n;
  }
  return runKey(text);
}

export function lineageOf(job: JobId, vm: VmId, repository: RepositoryId): LineageId {
  return lineageId(hash64(`lineage ${job} ${vm} ${repository}`).toString(16).padStart(16, '0'));
}

/** Of a VM whose own UUID is not known: in the form of a UUID (version 8: "ours"), the same for the same host and name. */
export function vmIdOf(host: HostId, name: string): VmId {
  const hex = ['a', 'b'].map((half) => hash64(`vm-${half} ${host}/${name}`).toString(16).padStart(16, '0')).join('');
  const variant = '89ab'[Number.parseInt(hex[16]!, 16) % 4]!;
  return vmId(
    `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20)}`,
  );
}

/** `td-<site>-<run key>-<kind><n>`: at most 31 characters, the limit of a QEMU node name. */
export function artifactName(site: SiteId, run: RunKey, kind: ArtifactKind, index: number): string {
  const name = `td-${site}-${run}-${kind}${index}`;
  if (name.length > 31) throw new RangeError(`artifact name ${name} is longer than 31 characters`);
  return name;
}

export type ArtifactName = { site: SiteId; run: RunKey; kind: ArtifactKind; index: number };

/** The parts of one of our names, or null for a name that is not ours. */
export function parseArtifactName(name: string): ArtifactName | null {
  const match = /^td-([a-z0-9]{1,6})-([a-z0-9]{12})-(bm|job|exp|flc|cbw|nbd|qsd)(\d{1,4})$/.exec(name);
  if (!match) return null;
  return {
    site: siteId(match[1]!),
    run: runKey(match[2]!),
    kind: match[3] as ArtifactKind,
    index: Number(match[4]),
  };
}
