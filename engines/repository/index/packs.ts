/** Names of packs by the numbers that entries have of them, and places in packs that are damaged. */

/** A number is given once and never again: entries of a pack that was dropped are told by theirs having no name. */
export class PackNumbers {
  readonly #names: Map<number, string>;
  readonly #numbers: Map<string, number>;
  #next: number;

  constructor(kept: { next: number; packs: readonly (readonly [number, string])[] } = { next: 0, packs: [] }) {
    this.#names = new Map(kept.packs);
    this.#numbers = new Map(kept.packs.map(([number, name]) => [name, number]));
    this.#next = kept.next;
  }

  /** Greater than every number given. */
  get next(): number {
    return this.#next;
  }

  get size(): number {
    return this.#names.size;
  }

  numberOf(name: string): number {
    const known = this.#numbers.get(name);
    if (known !== undefined) return known;
    this.#names.set(this.#next, name);
    this.#numbers.set(name, this.#next);
    return this.#next++;
  }

  find = (name: string): number | undefined => this.#numbers.get(name);
  has = (number: number): boolean => this.#names.has(number);
  nameOf = (number: number): string | undefined => this.#names.get(number);

  /** Its number, which is nobody's from here on. */
  drop(name: string): number | undefined {
    const number = this.#numbers.get(name);
    if (number === undefined) return undefined;
    this.#numbers.delete(name);
    this.#names.delete(number);
    return number;
  }
}

/** `offset`: of the record's header in the pack. */
export type DamagedPlace = { pack: string; offset: number };

export class DamagedPlaces {
  readonly #offsets = new Map<string, Set<number>>();

  constructor(places: Iterable<DamagedPlace> = []) {
    for (const place of places) this.add(place);
  }

  add({ pack, offset }: DamagedPlace): void {
    const offsets = this.#offsets.get(pack);
    if (offsets) offsets.add(offset);
    else this.#offsets.set(pack, new Set([offset]));
  }

  get isEmpty(): boolean {
    return this.#offsets.size === 0;
  }

  has = (pack: string, offset: number): boolean => this.#offsets.get(pack)?.has(offset) ?? false;
}
