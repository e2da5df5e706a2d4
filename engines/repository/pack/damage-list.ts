/**
 * What was found damaged in packs, for ever: `damaged` (FORMAT.md). A place named in it is not read again for what it
 * should be, whichever index is in use. A line goes when its pack is gone, or a later check finds the place sound.
 */
import type { Log } from '../../../schema/domain/seams.ts';
import { parseDamagedLine, type DamagedLine } from '../../../schema/repository/checked-lines.ts';
import { layout } from '../storage/layout.ts';
import { openLineLog, type LineLog } from '../storage/line-log.ts';
import type { Staging } from '../storage/staging.ts';

export type DamageList = {
  /** Oldest first. */
  lines(): Iterable<DamagedLine>;
  linesOf(pack: string): Iterable<DamagedLine>;
  /** Whether the record there is damaged. */
  has(pack: string, offset: number): boolean;
  /** Whether a record of that id (hex) was found that somebody without the keys wrote. */
  wasTampered(id: string): boolean;
  /** Known from now on, durable after `settle`. False when it was known. */
  add(line: DamagedLine): boolean;
  /** Lines that `stays` refuses are gone, durably, when it resolves. */
  sift(stays: (line: DamagedLine) => boolean): Promise<void>;
  /** All that was added before is durable when it resolves. */
  settle(): Promise<void>;
  close(): Promise<void>;
};

/** A pack has one line as a whole. */
const placeOf = ({ offset }: DamagedLine): number => offset ?? -1;

export async function openDamageList(of: { staging: Staging; log: Log }): Promise<DamageList> {
  const byPack = new Map<string, Map<number, DamagedLine>>();
  /** Ids, by how many places. */
  const tampered = new Map<string, number>();

  function countTampered({ id, code }: DamagedLine, more: 1 | -1): void {
    if (id === null || code !== 'TAMPERED') return;
    const places = (tampered.get(id) ?? 0) + more;
    if (places === 0) tampered.delete(id);
    else tampered.set(id, places);
  }

  function note(line: DamagedLine): boolean {
    const places = byPack.get(line.pack) ?? new Map<number, DamagedLine>();
    if (places.has(placeOf(line))) return false;
    byPack.set(line.pack, places.set(placeOf(line), line));
    countTampered(line, 1);
    return true;
  }

  function drop(line: DamagedLine): void {
    const places = byPack.get(line.pack);
    if (places?.delete(placeOf(line))) countTampered(line, -1);
    if (places?.size === 0) byPack.delete(line.pack);
  }

  function* lines(): Iterable<DamagedLine> {
    for (const places of byPack.values()) yield* places.values();
  }

  const log = await openLineLog(of, layout.damaged, (text) => {
    const line = parseDamagedLine(text);
    if (line) note(line);
    return line !== null;
  });
  const { add, settle } = createAppender(log, note);
  return {
    lines,
    linesOf: (pack) => byPack.get(pack)?.values() ?? [],
    wasTampered: (id) => tampered.has(id),
    has: (pack, offset) => byPack.get(pack)?.has(offset) ?? false,
    add,
    settle,
    sift: async (stays) => {
      const gone = [...lines()].filter((line) => !stays(line));
      if (gone.length === 0) return;
      await settle();
      for (const line of gone) drop(line);
      await log.rewrite([...lines()]);
    },
    close: async () => {
      try {
        await settle();
      } finally {
        await log.close();
      }
    },
  };
}

/** Lines that could not be written wait for the next try. */
function createAppender(log: LineLog, note: (line: DamagedLine) => boolean): Pick<DamageList, 'add' | 'settle'> {
  let waiting: DamagedLine[] = [];
  let last: Promise<void> = Promise.resolve();

  async function flush(): Promise<void> {
    const lines = waiting;
    if (lines.length === 0) return;
    waiting = [];
    try {
      await log.append(lines);
    } catch (error) {
      waiting = [...lines, ...waiting];
      throw error;
    }
  }

  return {
    add: (line) => {
      const isNew = note(line);
      if (isNew) waiting.push(line);
      return isNew;
    },
    settle: () => (last = last.catch(() => undefined).then(flush)),
  };
}
