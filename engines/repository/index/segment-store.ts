/**
 * Changes of what is on disk. Each is a new segment, then a new manifest that names it: a process that dies between has
 * changed nothing. One at a time; questions go on meanwhile and see the old or the new.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Delta } from './delta.ts';
import type { IndexFolder } from './index-folder.ts';
import { isSoundAt, isUncovered, noteDead, type IndexState } from './index-state.ts';
import { encodeManifest, MANIFEST_NAME } from './manifest.ts';
import type { MergeRange } from './merge-policy.ts';
import { deltaRun, mergeRuns, segmentRun, type EntryRun } from './merge-runs.ts';
import { segmentName, type Segment } from './segment.ts';
import { writeSegment } from './segment-writer.ts';

export type StoreHome = {
  folder: IndexFolder;
  uuid: string;
  generation: number;
  /** Random, 32 bits. */
  newSalt: () => number;
};

/** `.new-manifest`: being written; `index`: of version 1. */
const OUR_NAMES = /^(manifest|\.new-manifest|segment-\d+|index)$/;

/** Of the delta, looked at in one turn. */
const PIECE_ENTRIES = 16_384;

/** The process ends: what was begun is given up. */
export class Stopped extends Error {}

export class SegmentStore {
  readonly #state: IndexState;
  readonly #home: StoreHome;
  #nextSegment: number;

  constructor(state: IndexState, home: StoreHome, nextSegment: number) {
    this.#state = state;
    this.#home = home;
    this.#nextSegment = nextSegment;
  }

  /** What the delta has of complete packs goes into a segment. */
  async spill(): Promise<void> {
    const { delta, packs, complete } = this.#state;
    const spilled = new Set(complete);
    if (spilled.size === 0) return;
    const isSpilled = (pack: number): boolean => spilled.has(pack) && packs.has(pack);
    const written = await this.#write([deltaRun(delta, isSpilled)], delta.count, () => false);
    await this.#commit(written, (segments) => [...segments, ...written], spilled);
    await this.#cutDelta();
  }

  /** What is covered goes from the delta: in pieces, and what is added meanwhile stays. */
  async #cutDelta(): Promise<void> {
    const { delta } = this.#state;
    const rest = new Delta();
    for (let from = 0; from < delta.count; from += PIECE_ENTRIES) {
      if (from > 0) await nextTurn();
      const to = Math.min(delta.count, from + PIECE_ENTRIES);
      rest.addFrom(delta, from, to, (pack) => isUncovered(this.#state, pack));
    }
    // In the turn of the last piece: nothing is added between.
    this.#state.delta = rest;
  }

  /** Several segments become one, without what is dead in them. */
  async merge({ from, to }: MergeRange, isStopped: () => boolean): Promise<void> {
    const inputs = this.#state.segments.slice(from, to);
    for (const segment of inputs) segment.retain();
    try {
      const runs = inputs.map((segment) => segmentRun(segment, inputs.length));
      const most = inputs.reduce((sum, { entryCount, deadCount }) => sum + entryCount - deadCount, 0);
      const merged = await this.#write(runs, most, isStopped);
      await this.#commit(
        merged,
        (segments) => {
          // Found damaged meanwhile: all of them are given up.
          if (!inputs.every((segment) => segments.includes(segment))) throw new Stopped();
          return [...segments.slice(0, from), ...merged, ...segments.slice(to)];
        },
        new Set(),
      );
      await this.#remove(inputs);
    } finally {
      for (const segment of inputs) await segment.release();
    }
  }

  /** Nothing on disk counts but what is in use; the rest is removed. */
  async reset(): Promise<void> {
    await this.#commit([], (segments) => segments, new Set());
    await this.removeUnused();
  }

  /** What a process left that died, or another version. */
  async removeUnused(): Promise<void> {
    const { segments, covered } = this.#state;
    const used = new Set(segments.map(({ ref }) => segmentName(ref)));
    if (covered.size > 0) used.add(MANIFEST_NAME);
    for (const name of await this.#home.folder.list())
      if (OUR_NAMES.test(name) && !used.has(name)) await this.#home.folder.remove(name);
  }

  /** One segment, or none when nothing was left of the runs. */
  async #write(runs: EntryRun[], most: number, isStopped: () => boolean): Promise<Segment[]> {
    const ref = { number: this.#nextSegment++, salt: this.#home.newSalt() };
    const entries = mergeRuns(runs, (bytes, base) => {
      if (isStopped()) throw new Stopped();
      return isSoundAt(this.#state, bytes, base);
    });
    const segment = await writeSegment(this.#home.folder, ref, entries, most);
    return segment ? [segment] : [];
  }

  /**
   * `change` puts what was written among the segments there are, before the manifest is and after it. `covered`: packs
   * that are covered besides. What was written is removed when it fails.
   */
  async #commit(
    written: readonly Segment[],
    change: (segments: Segment[]) => Segment[],
    covered: ReadonlySet<number>,
  ): Promise<void> {
    try {
      await this.#home.folder.replace(MANIFEST_NAME, this.#manifest(change(this.#state.segments), covered));
      this.#state.segments = change(this.#state.segments);
    } catch (error) {
      await this.#remove(written);
      throw error;
    }
    for (const segment of this.#state.segments) noteDead(segment, this.#state.packs);
    for (const number of covered) {
      this.#state.complete.delete(number);
      if (this.#state.packs.has(number)) this.#state.covered.add(number);
    }
  }

  #manifest(segments: readonly Segment[], covered: ReadonlySet<number>): Buffer {
    const { packs } = this.#state;
    const named: [number, string][] = [];
    for (const numbers of [this.#state.covered, covered]) {
      for (const number of numbers) {
        const name = packs.nameOf(number);
        if (name !== undefined) named.push([number, name]);
      }
    }
    return encodeManifest({
      uuid: this.#home.uuid,
      generation: this.#home.generation,
      nextSegment: this.#nextSegment,
      nextPack: packs.next,
      segments: segments.map(({ ref }) => ref),
      packs: named,
    });
  }

  async #remove(segments: readonly Segment[]): Promise<void> {
    for (const segment of segments) {
      await segment.release();
      await this.#home.folder.remove(segmentName(segment.ref));
    }
  }
}
