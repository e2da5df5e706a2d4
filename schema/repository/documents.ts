/**
 * The JSON documents of a repository: repository.json, manifest, head of an open restore point, tombstone.
 * Each `parse...` throws REPOSITORY_CORRUPT naming the file; unknown members are ignored (FORMAT.md).
 */
import { z } from 'zod';
import { TidemarkError } from '../domain/errors.ts';
import type { DiskKey, RepositoryId, RestorePointId, RunKey } from '../domain/ids.ts';
import type { DiskPlan, Manifest, RestorePointSpec } from '../domain/restore-point.ts';
import { blockSizes, codecs, compressions } from '../domain/states.ts';
import { canonicalJson, decodeChecked, encodeChecked } from './checked-json.ts';
import { isId128 } from './digest.ts';
import { ENCRYPTION, keyMembers, keyMembersFault, type KeyMembers } from './key-shapes.ts';
import {
  FORMAT_VERSION,
  MAX_DISK_BYTES,
  MAX_DISKS,
  MAX_DOCUMENT_BYTES,
  MAX_HEIGHT,
  MAX_NESTING,
  MAX_REPOSITORY_FILE_BYTES,
} from './limits.ts';

const text = z.string().max(4096);
const id128 = z.string().refine(isId128, '32 hex digits');
const digest = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.int().nonnegative();
const diskBytes = count.max(MAX_DISK_BYTES);
const blockSize = z.int().refine((value) => (blockSizes as readonly number[]).includes(value), 'a block size');
const reason = z.object({ code: text, message: text });
const vmRef = z.object({ vmId: text, hostId: text });
const mode = z.enum(['full', 'cbt', 'comparison']);
const finding = z.object({ level: z.enum(['info', 'warning']), code: text, message: text });

// ---- repository.json ---------------------------------------------------------------------------

// Members that are not known are kept when it is written again.
const repositoryFile = z.looseObject({
  format: count,
  repository: text,
  uuid: id128,
  createdAt: text,
  generation: count,
  features: z.looseObject({ must: z.array(text), may: z.array(text) }),
  blockSizes: z.array(blockSize),
  ...keyMembers,
});
/** What of `features.must` this version understands. */
const knownFeatures: readonly string[] = [ENCRYPTION];

export type RepositoryFile = KeyMembers & {
  format: number;
  repository: RepositoryId;
  uuid: string;
  createdAt: string;
  generation: number;
  features: { must: string[]; may: string[] };
  blockSizes: number[];
};

/** What is read before anything else is known of the rest. */
const formatAndFeatures = z.object({ format: count, features: z.object({ must: z.array(text) }) });

/** Of a document: it has the number of its repository. */
const format = z.literal(FORMAT_VERSION);

export const newRepositoryFile = (repository: RepositoryId, uuid: string, createdAt: string): RepositoryFile => ({
  format: FORMAT_VERSION,
  repository,
  uuid,
  createdAt,
  generation: 0,
  features: { must: [], may: [] },
  blockSizes: [...blockSizes],
  keySlots: [],
  dataKeys: [],
  keyCheck: null,
});

export const isEncrypted = ({ keySlots }: Pick<RepositoryFile, 'keySlots'>): boolean => keySlots.length > 0;

/** BUG for one that could not be read again. */
export function encodeRepositoryFile(file: RepositoryFile): string {
  const json = `${canonicalJson(file)}\n`;
  if (Buffer.byteLength(json) > MAX_REPOSITORY_FILE_BYTES)
    throw new TidemarkError('BUG', `repository.json of over ${MAX_REPOSITORY_FILE_BYTES} bytes`);
  return json;
}

/**
 * REPOSITORY_NEWER for a higher format or an unknown must-understand feature; REPOSITORY_OLDER for format 0;
 * REPOSITORY_CORRUPT when unreadable, or when an encrypted one does not match its sum.
 */
export function parseRepositoryFile(json: string, file: string): RepositoryFile {
  const value = json.length <= MAX_REPOSITORY_FILE_BYTES ? parseJson(json) : undefined;
  const head = formatAndFeatures.safeParse(value);
  if (head.success) checkIsReadable(head.data, file);
  const parsed = checkShape(repositoryFile, value, file) as unknown as RepositoryFile;
  const fault = keyMembersFault(parsed);
  if (fault !== null) throw new TidemarkError('REPOSITORY_CORRUPT', `${file}: ${fault}`, { file });
  return parsed;
}

function checkIsReadable({ format, features }: z.infer<typeof formatAndFeatures>, file: string): void {
  const details = { file, format, features };
  if (format > FORMAT_VERSION) {
    const message = `${file} is of format ${format}, and this version knows formats up to ${FORMAT_VERSION}`;
    throw new TidemarkError('REPOSITORY_NEWER', message, details);
  }
  if (format < FORMAT_VERSION) {
    const message = `${file} is of format ${format}, which was given up before format ${FORMAT_VERSION}`;
    throw new TidemarkError('REPOSITORY_OLDER', message, details);
  }
  const unknown = features.must.filter((feature) => !knownFeatures.includes(feature));
  if (unknown.length === 0) return;
  const message = `${file} needs what this version does not know: [${unknown.join(', ')}]`;
  throw new TidemarkError('REPOSITORY_NEWER', message, details);
}

function parseJson(json: string): unknown {
  try {
    const value: unknown = JSON.parse(json);
    return isWithin(value, MAX_NESTING) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Whether `value` is nested at most `levels` deep: members kept as they are are written again by recursion. */
function isWithin(value: unknown, levels: number): boolean {
  if (value === null || typeof value !== 'object') return true;
  return levels > 0 && Object.values(value).every((member) => isWithin(member, levels - 1));
}

type Refusal = 'REPOSITORY_CORRUPT' | 'BAD_REQUEST';

function checkShape<S extends z.ZodType>(
  schema: S,
  value: unknown,
  file: string,
  refusal: Refusal = 'REPOSITORY_CORRUPT',
): z.infer<S> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const field = issue?.path.join('.') ?? '';
  throw new TidemarkError(refusal, `${file}: ${field} ${issue?.message ?? 'is not understood'}`, { file, field });
}

// ---- manifest ----------------------------------------------------------------------------------

const referencePoint = z.object({
  run: text,
  lineage: text,
  platformId: text,
  disks: z.array(z.object({ diskKey: text, trackingId: text, identity: text, sizeBytes: diskBytes })).max(MAX_DISKS),
});

const conservation = z.object({
  sizeBytes: diskBytes,
  unallocatedBytes: diskBytes,
  zeroBytes: diskBytes,
  filteredBytes: diskBytes,
  unchangedBytes: diskBytes,
  deduplicatedBytes: diskBytes,
  storedBytes: diskBytes,
});

const manifestDisk = z.object({
  diskKey: text,
  identity: text,
  sizeBytes: diskBytes,
  blockSize,
  root: digest,
  height: count.max(MAX_HEIGHT),
  filterDigest: digest.nullable(),
  baseRoot: digest.nullable(),
  mode,
  reason,
  audit: z.object({ sampled: count, mismatched: count, firstMismatch: count.nullable().optional() }),
  conservation,
  readBytes: count,
  sentBytes: count,
});

const policy = z.enum(['require', 'prefer', 'none']);
const reached = z.enum(['application', 'filesystem', 'crash']);
const manifest = z.object({
  format,
  repository: text,
  restorePointId: id128,
  run: text,
  lineage: text,
  vm: z.object({ vmId: text, hostId: text, name: text }),
  jobId: text,
  sessionId: text,
  nominalTime: text,
  takenAt: text,
  sealedAt: text,
  writer: text,
  baseRestorePointId: id128.nullable(),
  consistency: z.object({ asked: policy, reached, frozenMs: z.number().nullable(), why: reason.optional() }),
  warnings: z.array(finding),
  leftOut: z.array(z.object({ diskKey: text, why: reason })).max(MAX_DISKS),
  referencePoint: referencePoint.nullable(),
  disks: z.array(manifestDisk).max(MAX_DISKS),
  configurationRoot: digest.nullable(),
  ledgerDigest: digest,
  suspect: z.boolean(),
});

/** Text of the file and digest of its JSON. BAD_REQUEST naming the field of what could not be read again. */
export function encodeManifest(value: Manifest): { text: string; digest: string } {
  checkShape(manifest, value, 'manifest', 'BAD_REQUEST');
  return encodeChecked(value, MAX_DOCUMENT_BYTES);
}

/** A manifest file's text to the manifest and the digest of its canonical JSON. */
export function parseManifest(source: string, file: string): { manifest: Manifest; digest: string } {
  const { value, digest } = decodeChecked(source, file);
  return { manifest: checkShape(manifest, value, file) as Manifest, digest };
}

// ---- open restore point --------------------------------------------------------------------------

const diskPlan = z.object({
  diskKey: text,
  sizeBytes: diskBytes,
  identity: text,
  mode,
  reason,
  baseRestorePointId: id128.nullable(),
});
const declaredDisk = z.object({ diskKey: text, sizeBytes: diskBytes, identity: text });
const baseMap = z.object({ restorePointId: id128, root: digest, height: count.max(MAX_HEIGHT), sizeBytes: diskBytes });
const auditOutcome = z.object({
  binding: count,
  sampled: count,
  mismatched: count,
  firstMismatch: count.nullable(),
});
const headDisk = z.object({
  number: count,
  binding: count,
  fence: count,
  assignment: count,
  checkpoint: text,
  plan: diskPlan,
  blockSize,
  base: baseMap.nullable(),
  filterDigest: digest.nullable(),
  audit: auditOutcome.optional(),
});
/** `codec`: of heads that were written before there were levels, in place of `compression`. */
const spec = z.object({
  run: text,
  lineage: text,
  vm: vmRef,
  vmName: text,
  jobId: text,
  sessionId: text,
  nominalTime: text,
  blockSize,
  compression: z.enum(compressions).optional(),
  codec: z.enum(codecs).optional(),
});
const head = z.object({
  format,
  restorePointId: id128,
  openedAt: text,
  spec,
  baseRestorePointId: id128.nullable(),
  declared: z.array(declaredDisk).max(MAX_DISKS),
  disks: z.array(headDisk).max(MAX_DISKS),
});

/** What an audit found; blocks. `firstMismatch`: index of the first in the disk. */
export type AuditOutcome = z.infer<typeof auditOutcome>;
/** Disk as declared before the checkpoint. */
export type DeclaredDisk = { diskKey: DiskKey; sizeBytes: number; identity: string };
/** The map unchanged blocks come from. */
export type BaseMap = { restorePointId: RestorePointId; root: string; height: number; sizeBytes: number };
export type HeadDisk = Omit<z.infer<typeof headDisk>, 'plan' | 'base'> & { plan: DiskPlan; base: BaseMap | null };
export type Head = {
  format: number;
  restorePointId: RestorePointId;
  openedAt: string;
  spec: RestorePointSpec;
  baseRestorePointId: RestorePointId | null;
  declared: DeclaredDisk[];
  disks: HeadDisk[];
};

/** Text of the file. BAD_REQUEST naming the field of what could not be read again. */
export function encodeHead(value: Head): string {
  checkShape(head, value, 'restore point', 'BAD_REQUEST');
  return encodeChecked(value, MAX_DOCUMENT_BYTES).text;
}

export function parseHead(source: string, file: string): Head {
  const { spec: written, ...rest } = checkShape(head, decodeChecked(source, file).value, file);
  const { codec, compression = codec === 'none' ? 'none' : 'balanced', ...of } = written;
  return { ...rest, spec: { ...of, compression } } as Head;
}

const tombstone = z.object({ format, restorePointId: id128, run: text, abortedAt: text });
export type Tombstone = { format: number; restorePointId: RestorePointId; run: RunKey; abortedAt: string };

/** Text of the file. BAD_REQUEST naming the field of what could not be read again. */
export function encodeTombstone(value: Tombstone): string {
  checkShape(tombstone, value, 'tombstone', 'BAD_REQUEST');
  return encodeChecked(value, MAX_DOCUMENT_BYTES).text;
}

export const parseTombstone = (source: string, file: string): Tombstone =>
  checkShape(tombstone, decodeChecked(source, file).value, file) as Tombstone;
