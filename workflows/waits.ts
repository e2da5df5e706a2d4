const MOST_SHOWN = 2;

/** What a workflow waits for, in words, by who of it waits. */
export class Waits {
  readonly #texts = new Map<string, string>();
  readonly #changed: () => void;

  constructor(changed: () => void) {
    this.#changed = changed;
  }

  /** `text` null: does not wait any more. */
  tell(who: string, text: string | null): void {
    if ((this.#texts.get(who) ?? null) === text) return;
    if (text === null) this.#texts.delete(who);
    else this.#texts.set(who, text);
    this.#changed();
  }

  get text(): string | null {
    const texts = [...new Set(this.#texts.values())];
    const more = texts.length > MOST_SHOWN ? [`${texts.length - MOST_SHOWN} more`] : [];
    return texts.length === 0 ? null : [...texts.slice(0, MOST_SHOWN), ...more].join('; ');
  }
}
