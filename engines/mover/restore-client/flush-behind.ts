/** Makes what was written durable, and then the cursor, while further windows come. */
import type { DiskWriter } from '../../../schema/domain/seams.ts';
import { type RestoreCursor, writeCursor } from './cursor-file.ts';

export type FlushBehind = {
  /** Begins once the one before has ended; rejects with its failure. */
  begin(cursor: RestoreCursor): Promise<void>;
  /** Everything begun is durable; rejects with the failure of what is not. */
  idle(): Promise<void>;
  /** As `idle`, whatever became of it. */
  settled(): Promise<void>;
};

/** One at a time: a cursor may not be overtaken by an older one, and a slow disk holds up whoever writes to it. */
export function createFlushBehind(writer: DiskWriter, cursorFile: string): FlushBehind {
  let flushing: Promise<void> = Promise.resolve();
  const flush = async (cursor: RestoreCursor): Promise<void> => {
    await writer.flush();
    await writeCursor(cursorFile, cursor);
  };
  return {
    begin: async (cursor) => {
      await flushing;
      flushing = flush(cursor);
      // Told by the next call.
      flushing.catch(() => undefined);
    },
    idle: () => flushing,
    settled: () => flushing.catch(() => undefined),
  };
}
