/** Reads packs whole, the longest unread first, as many at once as there are threads, until all are read or a bound ends it. */
import type { CheckRequest } from '../../../schema/domain/maintenance.ts';
import type { Clock } from '../../../schema/domain/seams.ts';
import type { PackName } from '../pack/pack-reader.ts';
import type { Parts } from '../restore-point/parts.ts';
import type { PackPresence } from './pack-presence.ts';
import type { PackWorker } from './pack-worker.ts';
import type { VerifiedPacks } from './verified-packs.ts';
import type { FoundInPack, VerifyDepth } from './verify-pack.ts';

export type VerifyOptions = {
  worker: PackWorker;
  presence: PackPresence;
  verified: VerifiedPacks;
  depth: VerifyDepth;
  due: readonly PackName[];
  bounds: Pick<CheckRequest, 'maxBytes' | 'maxMs'>;
  signal: AbortSignal;
  tell(doneBytes: number): void;
};

export type Verified = { packs: number; bytes: number; whole: boolean };

/** A pack counts as read once what was found in it is durable. Rejects with the signal's reason. */
export async function verifyDue(parts: Pick<Parts, 'damages' | 'seams'>, options: VerifyOptions): Promise<Verified> {
  const { worker, presence, due, signal } = options;
  const next = createQueue(options, parts.seams.clock);
  const done: Verified = { packs: 0, bytes: 0, whole: true };
  const stop = (): void => void worker.close();
  signal.addEventListener('abort', stop, { once: true });
  try {
    const lane = async (): Promise<void> => {
      for (let name = next(); name; name = next()) {
        await verifyOne(parts, options, name);
        done.packs += 1;
        done.bytes += presence.bytesOf(name.packId) ?? 0;
        options.tell(done.bytes);
      }
    };
    await Promise.all(Array.from({ length: worker.laneCount }, lane));
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener('abort', stop);
  }
  signal.throwIfAborted();
  return { ...done, whole: done.packs === due.length };
}

/** The next to be read; null when none is, or when a bound is reached. One is always read: else there is no end to it. */
function createQueue({ due, bounds, presence, signal }: VerifyOptions, clock: Clock): () => PackName | null {
  const untilMs = clock.monotonic() + (bounds.maxMs ?? Infinity);
  let [at, begunBytes] = [0, 0];
  return () => {
    const name = due[at];
    if (!name || signal.aborted) return null;
    const bytes = presence.bytesOf(name.packId) ?? 0;
    const isOver = begunBytes + bytes > (bounds.maxBytes ?? Infinity) || clock.monotonic() >= untilMs;
    if (at > 0 && isOver) return null;
    at += 1;
    begunBytes += bytes;
    return name;
  };
}

async function verifyOne({ damages }: Pick<Parts, 'damages'>, options: VerifyOptions, name: PackName): Promise<void> {
  const { worker, presence, verified, depth } = options;
  const { packId } = name;
  const doubted = [...damages.list.linesOf(packId)].map(({ offset }) => offset).filter((offset) => offset !== null);
  const { fileBytes, found, sound, offsets } = await worker.verify({ ...name, depth, doubted });
  // Moved by a collection, or lost: whoever needs something of it finds out.
  if (fileBytes === null) return presence.forget(packId);
  if (offsets) presence.noteRecords(packId, offsets);
  for (const one of found) report(damages, packId, one);
  await damages.list.settle();
  if (depth === 'full') await clearSound(damages, packId, found, sound);
  await verified.note(packId, depth);
}

function report(damages: Parts['damages'], pack: string, { kind, id, offset, ...fault }: FoundInPack): void {
  if (kind === 'pack' || id === null || offset === null) damages.reportPack(pack, fault.why);
  else damages.report({ id: Buffer.from(id, 'hex'), kind, place: { pack, offset } }, fault);
}

/** What was found earlier and is sound now: a cable, a controller. The index believes it from the next start on. */
async function clearSound(
  { list }: Parts['damages'],
  pack: string,
  found: readonly FoundInPack[],
  sound: readonly number[],
): Promise<void> {
  const isOutlined = !found.some(({ kind }) => kind === 'pack');
  const isCleared = (offset: number | null): boolean => (offset === null ? isOutlined : sound.includes(offset));
  if (![...list.linesOf(pack)].some(({ offset }) => isCleared(offset))) return;
  await list.sift((line) => line.pack !== pack || !isCleared(line.offset));
}
