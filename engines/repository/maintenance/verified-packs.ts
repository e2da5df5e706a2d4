/**
 * Which packs were read whole, in which order: `verified` (FORMAT.md). It says where a check that was killed, or ended at
 * a bound, goes on. Order is that of the lines: no clock has a say in it.
 */
import type { Clock, Log } from '../../../schema/domain/seams.ts';
import { parseVerifiedLine, type VerifiedLine } from '../../../schema/repository/checked-lines.ts';
import type { PackName } from '../pack/pack-reader.ts';
import { layout } from '../storage/layout.ts';
import { openLineLog } from '../storage/line-log.ts';
import type { Staging } from '../storage/staging.ts';
import type { VerifyDepth } from './verify-pack.ts';

export type VerifiedPacks = {
  /** Takes up the check of that name that has not ended, else begins it. */
  begin(check: string): Promise<void>;
  /** Of these the ones that the check has not read so deep, the longest unread first. */
  due(check: string, depth: VerifyDepth, packs: readonly PackName[]): PackName[];
  /** Durable when it resolves. */
  note(pack: string, depth: VerifyDepth): Promise<void>;
  /** `exists`: of a pack. */
  end(check: string, exists: (pack: string) => boolean): Promise<void>;
  close(): Promise<void>;
};

/** Lines that say nothing more are worth so many that do. */
const SPARE_LINES = 1000;

export async function openVerifiedPacks(of: { staging: Staging; log: Log; clock: Clock }): Promise<VerifiedPacks> {
  const lines = new Lines();
  const log = await openLineLog(of, layout.verified, (text) => {
    const line = parseVerifiedLine(text);
    if (line) lines.add(line);
    return line !== null;
  });
  const now = (): string => new Date(of.clock.now()).toISOString();
  const append = async (line: VerifiedLine): Promise<void> => {
    await log.append([line]);
    lines.add(line);
  };
  return {
    begin: async (check) => {
      if (lines.begunAt(check) === null) await append({ begun: check, at: now() });
    },
    due: (check, depth, packs) => {
      const since = lines.begunAt(check) ?? 0;
      return packs
        .filter(({ packId }) => lines.readAt(packId, depth) < since)
        .toSorted((a, b) => lines.readAt(a.packId, depth) - lines.readAt(b.packId, depth));
    },
    note: (pack, depth) => append({ pack, depth, at: now() }),
    end: async (check, exists) => {
      await append({ ended: check, at: now() });
      if (lines.count <= 2 * lines.neededCount + SPARE_LINES) return;
      lines.sift(exists);
      await log.rewrite(lines.all());
    },
    close: () => log.close(),
  };
}

type Numbered = { number: number; line: VerifiedLine };

/** What counts of the lines, numbered from 1 in their order. */
class Lines {
  readonly #packs: Record<VerifyDepth, Map<string, Numbered>> = { sums: new Map(), full: new Map() };
  readonly #checks = new Map<string, Numbered>();
  #next = 1;
  count = 0;

  get neededCount(): number {
    return this.#packs.sums.size + this.#packs.full.size + this.#checks.size;
  }

  add(line: VerifiedLine): void {
    this.count += 1;
    const numbered = { number: this.#next++, line };
    if ('pack' in line) this.#packs[line.depth].set(line.pack, numbered);
    else if ('begun' in line) this.#checks.set(line.begun, numbered);
    else this.#checks.delete(line.ended);
  }

  /** Null: not begun, or ended. */
  begunAt = (check: string): number | null => this.#checks.get(check)?.number ?? null;

  /** 0: never. Who read it in full has read its sums. */
  readAt(pack: string, depth: VerifyDepth): number {
    const full = this.#packs.full.get(pack)?.number ?? 0;
    return depth === 'full' ? full : Math.max(full, this.#packs.sums.get(pack)?.number ?? 0);
  }

  sift(exists: (pack: string) => boolean): void {
    for (const packs of Object.values(this.#packs))
      for (const pack of packs.keys()) if (!exists(pack)) packs.delete(pack);
    this.count = this.neededCount;
  }

  all(): VerifiedLine[] {
    const numbered = [...Object.values(this.#packs), this.#checks].flatMap((known) => [...known.values()]);
    return numbered.toSorted((a, b) => a.number - b.number).map(({ line }) => line);
  }
}
