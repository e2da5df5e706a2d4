/** The image that every contender backs up, and changes to it: written into the peers' file, told to the simulated guest. */
import { closeSync, copyFileSync, fsyncSync, openSync, writeSync } from 'node:fs';
import path from 'node:path';
import { contentOf } from '../../engines/hypervisors/simulated/content.ts';
import { diskKey } from '../../schema/domain/ids.ts';
import type { GuestLine } from '../../engines/hypervisors/simulated/model.ts';
import { type Next, randomFrom } from '../../tests/fixtures/mover/disks.ts';
import { type Image, makeImage } from '../repository/image.ts';
import { MIB } from '../repository/report.ts';

const CHANGES = 60;
export const CHANGED_BYTES = CHANGES * MIB;

export class ChangingImage {
  /** As it was at first: what the simulated disk begins with. Never changed. */
  readonly first: Image;
  /** With all changes: what the others read. */
  readonly file: string;
  readonly #next: Next;
  #seed = 1;

  constructor(root: string, of: { folder: string; sizeBytes: number; seed: number }) {
    this.first = makeImage(path.join(root, 'first.raw'), of);
    this.file = path.join(root, 'disk.raw');
    copyFileSync(this.first.file, this.file);
    this.#next = randomFrom(of.seed);
  }

  /** As many mebibytes, aligned, at random places; what the guest is to be told of them. */
  change(): GuestLine[] {
    const file = openSync(this.file, 'r+');
    const bytes = Buffer.alloc(MIB);
    const lines = Array.from({ length: CHANGES }, (): GuestLine => {
      const offset = this.#next(Math.floor(this.first.sizeBytes / MIB)) * MIB;
      const write = { offset, length: MIB, seed: (this.#seed += 1) };
      contentOf({ sizeBytes: this.first.sizeBytes, seed: 0, identity: '', writes: [write] }, write, bytes);
      writeSync(file, bytes, 0, MIB, offset);
      return { kind: 'write', diskKey: diskKey('d0'), ...write };
    });
    fsyncSync(file);
    closeSync(file);
    return lines;
  }
}
