/**
 * Answers offers and makes windows durable, in the main thread of the repository process. Never hashes, never compresses.
 *
 * Promises ("have" to a digest not durable yet) hold inside one window of one connection only: the first offer of a digest
 * there is answered `want`, its repeats at other positions of that window `have`; in another window, or on another
 * connection, `want` again. So no window ever depends on another being committed first; a second copy of a record does
 * no harm: the first sound one is found. What was promised is pinned until its window is in the ledger, or the connection
 * ends: a source that comes back offers everything anew.
 */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { WINDOW_BYTES } from '../../../schema/domain/extents.ts';
import type { FinishedWindow, OfferAnswer, TransferHello, TransferRegistrar } from '../../../schema/domain/seams.ts';
import type { Clock } from '../../../schema/domain/seams.ts';
import { encodeLedgerRecord, type LedgerRecord } from '../../../schema/repository/ledger.ts';
import type { HeadDisk } from '../../../schema/repository/documents.ts';
import { MAX_WINDOW_BLOCKS } from '../../../schema/repository/limits.ts';
import { blockLengthOf } from '../../../schema/repository/map-page.ts';
import { isBaseSound } from './also-read.ts';
import { type Audited, type AuditParts, createAudits } from './audits.ts';
import { baseEntries, resolves } from './base-view.ts';
import type { DigestIndex } from './digest-index.ts';
import { blocksOf, cursorOf, noteFrame, type OpenDisk, type OpenPoint } from './open-point.ts';
import type { Parts } from './parts.ts';
import { requireOpen, type Points } from './points.ts';
import { frameOfSame } from './same-window.ts';
import { baseLost, blocksOfWindow, frameOfUntouched, frameOfWindow, protocolError } from './window-frame.ts';

/** Windows of which promises are kept; a lane has few under way. */
const MAX_PROMISING_WINDOWS = 64;

type Connection = {
  hello: TransferHello;
  point: OpenPoint;
  disk: OpenDisk;
  binding: number;
  /** Window under way -> digest -> block that was answered `want`, or FOUND. */
  promises: Map<number, Map<string, number>>;
  /** What was answered so far is relied on until its window is in the ledger. */
  unpin: () => void;
};

/** The repository had it. */
const FOUND = -1;

export type RegistrarParts = { clock: Clock } & AuditParts &
  Pick<Parts, 'points' | 'index' | 'pages' | 'soundMaps' | 'damages' | 'reliance'>;

export function createRegistrar(parts: RegistrarParts): TransferRegistrar {
  const connections = new Map<string, Connection>();
  const audits = createAudits(parts);

  function connectionOf(name: string): Connection {
    const connection = connections.get(name);
    if (!connection)
      throw new TidemarkError('PROTOCOL_ERROR', `connection ${name} has not begun`, { connection: name });
    checkCurrent(parts.points, connection);
    return connection;
  }

  async function append(connection: Connection, record: LedgerRecord): Promise<void> {
    const { point } = connection;
    checkCurrent(parts.points, connection);
    await point.ledger.append(encodeLedgerRecord(record), (offset) => noteFrame(point, record, offset));
    point.lastWriteAt = parts.clock.now();
  }

  return {
    begin: async (name, hello) => {
      const connection = open(parts, hello);
      connections.get(name)?.unpin();
      connections.set(name, connection);
      return { ...cursorOf(connection.disk), auditDue: audits.isDue(connection.disk.head) };
    },
    beginAudit: async (name, changedBytes) =>
      audits.begin(name, auditedOf(parts.points, connectionOf(name)), changedBytes),
    goOnAudit: async (name, answers) => audits.goOn(name, auditedOf(parts.points, connectionOf(name)), answers),
    offer: async (name, firstBlock, digests) => {
      const connection = connectionOf(name);
      const count = checkOffer(connection, firstBlock, digests);
      const base = await baseEntries(parts.pages, connection.disk.head, firstBlock, count);
      return base.map((entry, at) =>
        answer(parts.index, connection, firstBlock + at, digests.subarray(at * 32, at * 32 + 32), entry),
      );
    },
    commit: async (name, window) => {
      const connection = connectionOf(name);
      const { head } = connection.disk;
      const { first, count } = blocksOfWindow(head, window.windowIndex);
      const base = await baseEntries(parts.pages, head, first, count);
      applyRecords(parts.index, connection, window);
      const frame = frameOfWindow(head, connection.hello.fence, window, base, parts.index);
      // Also when the connection ends meanwhile: the frame is on its way.
      const unpin = parts.reliance.pin(() => digestsOf(frame));
      await append(connection, frame).finally(unpin);
      connection.promises.delete(window.windowIndex);
    },
    commitSame: async (name, windowIndex, digest, declared) => {
      const connection = connectionOf(name);
      const compared = { windowIndex, digest, declared };
      const frame = await frameOfSame(parts, connection.disk.head, connection.hello.fence, compared);
      if (frame) await append(connection, frame);
      return frame !== null;
    },
    commitUntouched: async (name, firstWindow, windowCount) => {
      const connection = connectionOf(name);
      const { head } = connection.disk;
      const frame = frameOfUntouched(head, connection.hello.fence, firstWindow, windowCount);
      if (!isBaseSound(parts, head)) await checkBase(parts, head, firstWindow, windowCount);
      await append(connection, frame);
    },
    end: async (name) => {
      connections.get(name)?.unpin();
      connections.delete(name);
      audits.end(name);
    },
  };
}

function auditedOf(points: Points, connection: Connection): Audited {
  const { point, disk, binding } = connection;
  return { point, disk, binding, check: () => checkCurrent(points, connection) };
}

function open({ points, reliance }: RegistrarParts, hello: TransferHello): Connection {
  const point = requireOpen(points, hello.restorePointId, hello.run);
  const disk = point.disks.get(hello.diskKey);
  if (!disk)
    throw new TidemarkError('PROTOCOL_ERROR', `disk ${hello.diskKey} was not assigned`, { diskKey: hello.diskKey });
  const promises: Connection['promises'] = new Map();
  const connection = { hello, point, disk, binding: disk.head.binding, promises };
  checkCurrent(points, connection);
  if (hello.fence > disk.head.fence) throw protocolError(disk.head, `fence ${hello.fence} was never given`);
  if (hello.sizeBytes !== disk.head.plan.sizeBytes || hello.blockSize !== disk.head.blockSize)
    throw protocolError(
      disk.head,
      `assigned with ${disk.head.plan.sizeBytes} bytes in blocks of ${disk.head.blockSize}`,
    );
  return { ...connection, unpin: reliance.pin(() => promisedDigests(promises)) };
}

function* promisedDigests(promises: Connection['promises']): Iterable<Uint8Array> {
  for (const window of promises.values()) for (const key of window.keys()) yield Buffer.from(key, 'latin1');
}

function* digestsOf({ entries }: LedgerRecord): Iterable<Uint8Array> {
  for (const entry of entries) if (entry.kind === 'data') yield entry.digest;
}

/** FENCED once a newer assignment exists or the restore point is being sealed or aborted; invariant 5. */
function checkCurrent(points: Points, connection: Pick<Connection, 'hello' | 'binding'>): void {
  const { hello, binding } = connection;
  const point = requireOpen(points, hello.restorePointId, hello.run);
  const disk = point.disks.get(hello.diskKey);
  const details = { diskKey: hello.diskKey, fence: hello.fence, highest: disk?.head.fence };
  if (point.closing)
    throw new TidemarkError('FENCED', `restore point ${hello.restorePointId} is being sealed or aborted`, details);
  if (!disk || hello.fence < disk.head.fence || binding !== disk.head.binding)
    throw new TidemarkError('FENCED', `fence ${hello.fence} of disk ${hello.diskKey} is not the newest`, details);
}

/** TRACKING_LOST when the base has lost a block of these windows. */
async function checkBase(
  { pages, index }: RegistrarParts,
  head: HeadDisk,
  firstWindow: number,
  windowCount: number,
): Promise<void> {
  for (let window = firstWindow; window < firstWindow + windowCount; window += 1) {
    const { first, count } = blocksOfWindow(head, window);
    for (const [at, entry] of (await baseEntries(pages, head, first, count)).entries()) {
      const length = blockLengthOf(first + at, head.plan.sizeBytes, head.blockSize);
      if (entry === null || !resolves(index, entry, length)) throw baseLost(head, first + at);
    }
  }
}

function checkOffer(connection: Connection, firstBlock: number, digests: Uint8Array): number {
  const { head } = connection.disk;
  const count = digests.byteLength / 32;
  const fits = Number.isSafeInteger(firstBlock) && firstBlock >= 0 && firstBlock + count <= blocksOf(head);
  if (!Number.isInteger(count) || count > 16 * MAX_WINDOW_BLOCKS || !fits)
    throw protocolError(head, `offer of ${digests.byteLength} bytes at block ${firstBlock}`);
  return count;
}

function answer(
  index: DigestIndex,
  connection: Connection,
  block: number,
  digest: Uint8Array,
  base: Uint8Array | null,
): OfferAnswer {
  const window = Math.floor((block * connection.disk.head.blockSize) / WINDOW_BYTES);
  const promised = promisesOf(connection, window);
  const key = Buffer.from(digest).toString('latin1');
  const firstAt = promised.get(key) ?? FOUND;
  // A block of the base whose record is lost is wanted like any other: so it heals.
  if (index.lookup(digest)) {
    promised.set(key, firstAt);
    return base !== null && Buffer.compare(base, digest) === 0 ? 'unchanged' : 'have';
  }
  if (firstAt !== FOUND && firstAt !== block) return 'have';
  promised.set(key, block);
  return 'want';
}

function promisesOf(connection: Connection, window: number): Map<string, number> {
  const { promises, disk } = connection;
  const known = promises.get(window);
  if (known) return known;
  if (promises.size >= MAX_PROMISING_WINDOWS) throw protocolError(disk.head, 'too many windows under way at once');
  const fresh = new Map<string, number>();
  promises.set(window, fresh);
  return fresh;
}

/** The lane wrote, checked and synced them: from here they are found, whatever becomes of the window. */
function applyRecords(index: DigestIndex, connection: Connection, window: FinishedWindow): void {
  const writer = connection.hello.restorePointId;
  if (window.records.length > MAX_WINDOW_BLOCKS)
    throw protocolError(connection.disk.head, `window ${window.windowIndex} has ${window.records.length} records`);
  index.apply(window.records.map(({ digest, place }) => ({ digest, kind: 'block' as const, place, writer })));
}
