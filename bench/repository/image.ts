/** A raw image as a disk full of files is: files of this machine, in an order that a seed decides, each on its own 4 KiB. */
import { closeSync, fsyncSync, ftruncateSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { type Next, randomFrom } from '../../tests/fixtures/mover/disks.ts';

/** Of a usual file system. */
const CLUSTER_BYTES = 4096;

export type Image = { file: string; sizeBytes: number; fileCount: number };

function* filesBelow(folder: string): Generator<string> {
  const entries = readdirSync(folder, { withFileTypes: true });
  for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* filesBelow(file);
    else if (entry.isFile()) yield file;
  }
}

function shuffle(files: string[], next: Next): void {
  for (let i = files.length - 1; i > 0; i -= 1) {
    const j = next(i + 1);
    [files[i], files[j]] = [files[j]!, files[i]!];
  }
}

/** Smaller than asked for where the folder has not as much. Synchronous: hundreds of thousands of small files are quick so. */
export function makeImage(
  file: string,
  { folder, sizeBytes, seed }: { folder: string; sizeBytes: number; seed: number },
): Image {
  const files = [...filesBelow(folder)];
  shuffle(files, randomFrom(seed));
  const image = openSync(file, 'wx');
  let [at, fileCount] = [0, 0];
  for (const source of files) {
    if (at >= sizeBytes) break;
    const bytes = readFileSync(source).subarray(0, sizeBytes - at);
    writeSync(image, bytes, 0, bytes.length, at);
    at = Math.min(sizeBytes, Math.ceil((at + bytes.length) / CLUSTER_BYTES) * CLUSTER_BYTES);
    fileCount += 1;
  }
  ftruncateSync(image, at);
  fsyncSync(image);
  closeSync(image);
  return { file, sizeBytes: at, fileCount };
}
