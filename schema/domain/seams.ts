/**
 * Types of what engines are handed at construction. Implementations come from `workers/runtime`;
 * in lane threads, from ones that post to the parent. Types only: nothing here runs.
 */
import type { AllocatedExtent, Extent } from './extents.ts';
import type { ErrorCode } from './errors.ts';
import type { DiskKey, RestorePointId, RunKey } from './ids.ts';
import type { Codec } from './states.ts';

export type Clock = {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Milliseconds, monotonic, of no fixed origin. */
  monotonic(): number;
  /** Rejects with the signal's reason when aborted. */
  sleep(durationMs: number, signal?: AbortSignal): Promise<void>;
};

export type LogFields = Record<string, unknown>;
export type Log = {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  child(fields: LogFields): Log;
};

export type Random = { bytes(count: number): Uint8Array };
export type Meter = { add(name: string, amount: number, labels?: Record<string, string>): void };

export type Seams = { clock: Clock; log: Log; random: Random; meter: Meter };

/** A disk opened for reading, in whichever thread opened it. Not shared between threads. */
export type DiskReader = {
  readonly sizeBytes: number;
  /** Covers `of` whole, in order, without gaps. */
  allocatedExtents(of: Extent): AsyncIterable<AllocatedExtent>;
  /** Only with `access.changes`; else throws TRACKING_LOST. In order. */
  changedExtents(of: Extent): AsyncIterable<Extent>;
  /** Fills `into` (length `of.length`). Several reads may be in flight. */
  read(of: Extent, into: Uint8Array, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
};

/** A restore target opened for writing. `zero` leaves a hole where the target is fresh. */
export type DiskWriter = {
  readonly sizeBytes: number;
  write(offset: number, data: Uint8Array, signal: AbortSignal): Promise<void>;
  zero(of: Extent, signal: AbortSignal): Promise<void>;
  /** Durable when it returns. */
  flush(): Promise<void>;
  close(): Promise<void>;
};

// ---- between mover target and repository -------------------------------------------------------

/** Where a record lies. `pack`: 32 hex digits. Bytes. */
export type RecordPlace = { pack: string; offset: number; storedLength: number; rawLength: number; codec: Codec };

/** What a connection says it is for (first frame). */
export type TransferHello = {
  purpose: 'backup';
  restorePointId: RestorePointId;
  run: RunKey;
  diskKey: DiskKey;
  fence: number;
  sizeBytes: number;
  blockSize: number;
};

/** Windows durably transferred: all below `lowWater`, and those above it that are listed. */
export type TransferCursor = { lowWater: number; above: number[]; windowCount: number };

/** `auditDue`: change tracking has to be audited before the first window (invariant 11). */
export type BegunTransfer = TransferCursor & { auditDue: boolean };

/** What the source says of an audited block: in its read set, so not audited; zeros; or data, by its digest. */
export type AuditClass = 'changed' | 'zero' | 'data';
/** 32 bytes of `digests` for each block of class data, in order. */
export type AuditAnswers = { classes: AuditClass[]; digests: Uint8Array };
/** The next blocks to look at, by their index in the disk; none: the audit is over, and found nothing. */
export type AuditStep = { audited: number; wanted: number; blocks: number[] };

/** Per block of an offer. `pending` is never answered in wire version 0 from another transfer for longer than it lives. */
export type OfferAnswer = 'want' | 'have' | 'pending' | 'unchanged';

/** How the source classed a block. */
export type SourceClass = 'not-read' | 'unallocated' | 'zero' | 'data';

/**
 * One finished window as a lane hands it to the registrar. `classes[i]` and `digests` (32 bytes each,
 * zero for what is not 'data') cover the window's blocks in order.
 */
export type FinishedWindow = {
  windowIndex: number;
  classes: SourceClass[];
  digests: Uint8Array;
  /** New records this lane wrote and synced for this window. */
  records: { digest: Uint8Array; place: RecordPlace }[];
  /** The source's own byte sums of this window, checked against `classes`. */
  declared: { notReadBytes: number; unallocatedBytes: number; zeroBytes: number; dataBytes: number };
};

/**
 * The one thread of a repository process that answers offers and makes windows durable. A lane reaches it by
 * message port; calls of one connection are answered in order. `connection` identifies promises: they end with it.
 */
export type TransferRegistrar = {
  /** FENCED for a lower fence than the highest given, also after a restart. */
  begin(connection: string, hello: TransferHello): Promise<BegunTransfer>;
  /** `changedBytes`: what change tracking reports. AUDIT_MISMATCH: an audit before this one found a block changed. */
  beginAudit(connection: string, changedBytes: number): Promise<AuditStep>;
  /**
   * Of the blocks of the last step. AUDIT_MISMATCH, when all were looked at and one was not as its base has it: that is
   * durable by then, and restore points that may lack changes are marked.
   */
  goOnAudit(connection: string, answers: AuditAnswers): Promise<AuditStep>;
  /** `digests`: 32 bytes each, for blocks `firstBlock...` in order; answers in the same order. */
  offer(connection: string, firstBlock: number, digests: Uint8Array): Promise<OfferAnswer[]>;
  /** Appends to the ledger and syncs it before it resolves: then the window may be acknowledged. */
  commit(connection: string, window: FinishedWindow): Promise<void>;
  /**
   * A window of which everything was read, by one digest over the entries that its blocks have in a map. True: they are
   * those of the base, and the window is durable. False: they are not, or the base lacks one; nothing happened.
   */
  commitSame(
    connection: string,
    windowIndex: number,
    digest: Uint8Array,
    declared: FinishedWindow['declared'],
  ): Promise<boolean>;
  /** A run of windows of which nothing is in the read set; one ledger record. */
  commitUntouched(connection: string, firstWindow: number, windowCount: number): Promise<void>;
  end(connection: string): Promise<void>;
};

/** In the lane's thread: appends records to this lane's own open pack. Synchronous writes of at most 1 MiB. */
export type RecordSink = {
  append(record: {
    /** Of the decoded payload, 32 bytes. */
    digest: Uint8Array;
    codec: Codec;
    rawLength: number;
    payload: Uint8Array;
    restorePointId: RestorePointId;
  }): RecordPlace;
  /**
   * Resolves when everything appended is durable. When it fails, all that was appended and not yet synced, by whomever,
   * is lost (its pack is never synced again): every user has to be stopped in the same turn.
   */
  sync(): Promise<void>;
  /** Writes the footer and closes its pack: at shutdown, and for whoever reads closed packs only. Fails as `sync`. */
  close(): Promise<void>;
};

/** Restore: a disk of a sealed restore point, resolved window by window. */
export type RestoreHello = { purpose: 'restore'; restorePointId: RestorePointId; diskKey: DiskKey };

/** An error as plain data: classes do not cross threads. */
export type ReadFailure = { code: ErrorCode; message: string; details: Record<string, unknown> };

export type RestoreSource = {
  /** Pins the restore point for as long as the connection lives. */
  begin(connection: string, hello: RestoreHello): Promise<{ sizeBytes: number; blockSize: number }>;
  /** Entry per block of the window: 32 zero bytes = zero block, and where the others lie (null for zero). */
  resolve(connection: string, windowIndex: number): Promise<{ digests: Uint8Array; places: (RecordPlace | null)[] }>;
  /**
   * Block `block` of the window could not be read at its place, as `failure` says: it is not looked for there any more.
   * Another place to try; else DAMAGED_BLOCK naming disk, block and pack, and the nearest restore points that are whole.
   */
  damaged(
    connection: string,
    windowIndex: number,
    block: number,
    place: RecordPlace,
    failure: ReadFailure,
  ): Promise<RecordPlace>;
  end(connection: string): Promise<void>;
};

/** In the lane's thread. */
export type RecordSource = {
  /**
   * The payload, still encoded, of the record of `digest`, in memory that is the caller's. DAMAGED_BLOCK when it is not
   * what was written, TAMPERED when somebody without the keys wrote it. `unsummed`: the caller sees to it that the digest
   * of what it decodes to is checked, and reads again when it is wrong, to be told what is damaged.
   */
  read(place: RecordPlace, digest: Uint8Array, options?: { unsummed?: boolean }): Promise<Uint8Array>;
  close(): Promise<void>;
};

// ---- between hypervisor provider and guest keeper ------------------------------------------------

export type MonitorEvent = { event: string; data: Record<string, unknown>; atMs: number };

/**
 * A VM's QMP monitor. One client per monitor socket is all QEMU allows, so the guest keeper owns it and
 * activities reach it through the keeper (invariant 7).
 */
export type Monitor = {
  /** VM_OFF when nobody listens on the socket; HYPERVISOR_ERROR with details {class, desc} for a QMP error. */
  execute<T = unknown>(command: string, args?: Record<string, unknown>): Promise<T>;
  /** Events from the call on; ends when the monitor closes or the signal aborts. */
  events(signal: AbortSignal): AsyncIterable<MonitorEvent>;
};
