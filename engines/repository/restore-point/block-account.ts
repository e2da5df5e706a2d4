/** Conservation (invariant 4): what the finished map says of every block, against what the source said of it. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { Conservation } from '../../../schema/domain/restore-point.ts';
import type { HeadDisk } from '../../../schema/repository/documents.ts';
import type { ClassSums, LedgerEntry } from '../../../schema/repository/ledger.ts';
import { PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { noSums } from './window-frame.ts';

type Kind = LedgerEntry['kind'];
const sumOf = { unallocated: 'unallocatedBytes', zero: 'zeroBytes', data: 'dataBytes' } as const satisfies Record<
  Kind,
  keyof ClassSums
>;
const fields = ['notReadBytes', 'unallocatedBytes', 'zeroBytes', 'dataBytes'] as const;

export const notConserved = ({ plan }: HeadDisk, why: string): TidemarkError =>
  new TidemarkError('NOT_CONSERVED', `disk ${plan.diskKey}: ${why}`, { diskKey: plan.diskKey });

export class BlockAccount {
  readonly #disk: HeadDisk;
  /** By the source, in all, and what of it was found equal to the base when it was sent. */
  readonly #declared = noSums();
  readonly #declaredUnchanged = noSums();
  /** From the map: blocks with an entry in the ledger, by the kind of that entry, unchanged ones apart. */
  readonly #changed = noSums();
  /** Sent as changed, equal to the base all the same: its page was damaged then, and has healed. */
  readonly #equal = noSums();
  #unchangedBytes = 0;
  #storedBytes = 0;
  #deduplicatedBytes = 0;

  constructor(disk: HeadDisk) {
    this.#disk = disk;
  }

  /** Of each window once. */
  declare(window: { declared: ClassSums; unchanged: ClassSums }): void {
    for (const field of fields) {
      this.#declared[field] += window.declared[field];
      this.#declaredUnchanged[field] += window.unchanged[field];
    }
  }

  /** A whole leaf of the base. */
  takeOver(leaf: number): void {
    const { plan, blockSize } = this.#disk;
    const leafBytes = PAGE_ENTRIES * blockSize;
    this.#unchangedBytes += Math.min(leafBytes, plan.sizeBytes - leaf * leafBytes);
  }

  /** `kind`: of the ledger's entry, if it has one. */
  unchanged(kind: Kind | null, length: number): void {
    this.#unchangedBytes += length;
    if (kind !== null) this.#equal[sumOf[kind]] += length;
  }

  empty(kind: 'zero' | 'unallocated', length: number): void {
    this.#changed[sumOf[kind]] += length;
  }

  data(isStored: boolean, length: number): void {
    this.#changed.dataBytes += length;
    if (isStored) this.#storedBytes += length;
    else this.#deduplicatedBytes += length;
  }

  /** NOT_CONSERVED naming the class in which map and source differ. */
  conserved(): Conservation {
    const { sizeBytes } = this.#disk.plan;
    const total = { declared: 0, unchanged: 0 };
    for (const field of fields) {
      const counted = this.#changed[field] + this.#equal[field] + this.#declaredUnchanged[field];
      this.#expect(`${field} of the map`, counted, this.#declared[field]);
      total.declared += this.#declared[field];
      total.unchanged += this.#declaredUnchanged[field] + this.#equal[field];
    }
    this.#expect('bytes declared', total.declared, sizeBytes);
    this.#expect('unchanged bytes of the map', this.#unchangedBytes, total.unchanged);
    const { unallocatedBytes, zeroBytes } = this.#changed;
    const conservation: Conservation = {
      sizeBytes,
      unallocatedBytes,
      zeroBytes,
      filteredBytes: 0,
      unchangedBytes: this.#unchangedBytes,
      deduplicatedBytes: this.#deduplicatedBytes,
      storedBytes: this.#storedBytes,
    };
    const sum = unallocatedBytes + zeroBytes + this.#unchangedBytes + this.#deduplicatedBytes + this.#storedBytes;
    this.#expect('bytes of all classes', sum, sizeBytes);
    return conservation;
  }

  #expect(what: string, found: number, expected: number): void {
    if (found !== expected) throw notConserved(this.#disk, `${what}: ${found}, by the source's account ${expected}`);
  }
}
