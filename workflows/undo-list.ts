/** What has to be taken back, last in first out. An entry is pushed before the verb it undoes. */
export type Undo = { name: string; run: () => Promise<void> };
export type UndoFailure = { name: string; error: unknown };

export class UndoList {
  private readonly entries: Undo[] = [];

  push(name: string, run: () => Promise<void>): void {
    this.entries.push({ name, run });
  }

  /** For what the way forward has done itself. */
  drop(name: string): void {
    const at = this.entries.findLastIndex((entry) => entry.name === name);
    if (at >= 0) this.entries.splice(at, 1);
  }

  /** Runs all of them, whatever fails; the failures are returned. */
  async runAll(): Promise<UndoFailure[]> {
    const failures: UndoFailure[] = [];
    for (let entry = this.entries.pop(); entry; entry = this.entries.pop()) {
      try {
        await entry.run();
      } catch (error) {
        failures.push({ name: entry.name, error });
      }
    }
    return failures;
  }
}
