/**
 * A window of a comparison that is likely to be what the base has: all of it is hashed first, at full speed, and one digest
 * is sent for it. Where it differs its blocks are offered, and those that are wanted are read once more: a window is never
 * held in memory.
 */
import { windowExtent } from '../../../schema/domain/extents.ts';
import type { SourceClass } from '../../../schema/domain/seams.ts';
import { DIGEST_BYTES, digestOf } from '../block-codec.ts';
import { runSideBySide } from '../waiting.ts';
import {
  endWindow,
  forEachSegment,
  hashSegment,
  newAccount,
  resender,
  sendAgain,
  waitsForOf,
  type WindowWork,
} from './send-window.ts';
import { blockExtent, planWindow } from './window-plan.ts';

/** Resolves when the target has acknowledged the window: with the bytes of it that were wanted. */
export async function compareWindow(work: WindowWork): Promise<number> {
  const { connection, assignment, window } = work;
  const extent = windowExtent(window, assignment.sizeBytes);
  const account = newAccount();
  const classes: SourceClass[] = [];
  work.onProgress({ readBytes: 0, sentBytes: 0, doneBytes: 0, waitsFor: 'source' });
  const plans = await work.clock.spend('source', () => planWindow(work.reader, assignment, extent));
  await forEachSegment(work, plans, async (segment, buffer) => {
    const hashed = await hashSegment(work, extent, segment, buffer, account);
    for (const [at, kind] of hashed.classes.entries()) classes[segment.firstBlock + at] = kind;
    // Nothing of it is done yet: whether it is to be sent is known when all of it is read.
    work.onProgress({ readBytes: 0, sentBytes: 0, doneBytes: 0, waitsFor: 'source' });
  });
  const entries = Buffer.alloc(classes.length * DIGEST_BYTES);
  for (const [block, digest] of account.digests) entries.set(digest, block * DIGEST_BYTES);
  work.onProgress({ readBytes: 0, sentBytes: 0, doneBytes: 0, waitsFor: 'target' });
  const digest = digestOf(entries);
  const compared = await work.clock.spend('away', () => connection.compareWindow(window, digest, account.sums));
  if (compared.isSame) {
    work.clock.acknowledged(compared.busyMs);
    return 0;
  }

  const resending = resender(work, extent, account.digests);
  connection.onWant = resending.want;
  const digests = Buffer.concat(classes.map((_, block) => account.digests.get(block) ?? Buffer.alloc(0)));
  const offer = { window, firstBlock: 0, classes, digests };
  const answers = await work.clock.spend('away', () => connection.offer(offer));
  const wanted = [...answers.keys()].filter((block) => answers[block] === 'want');
  const lengthOf = (block: number): number => blockExtent(extent, block, assignment).length;
  const wantedBytes = wanted.reduce((sum, block) => sum + lengthOf(block), 0);
  const tellDone = (doneBytes: number): void =>
    work.onProgress({ readBytes: 0, sentBytes: 0, doneBytes, waitsFor: waitsForOf(connection) });
  tellDone(extent.length - wantedBytes);
  await runSideBySide(wanted, work.width, async (block) => {
    await sendAgain(work, extent, account.digests, block);
    tellDone(lengthOf(block));
  });
  await endWindow(work, account, resending);
  return wantedBytes;
}
