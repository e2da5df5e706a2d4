/** A raw image as a disk full of files is: files of this machine, in an order that a seed decides, each on its own 4 KiB. */
import { constants, createReadStream } from 'node:fs';
import { type FileHandle, open, readdir, lstat } from 'node:fs/promises';
import path from 'node:path';
import { type Next, randomFrom } from '../../tests/fixtures/mover/disks.ts';

/** Of a usual file system. */
const CLUSTER_BYTES = 4096;
const PIECE_BYTES = 1024 * 1024;

export type Image = { file: string; sizeBytes: number; fileCount: number };

async function* filesBelow(folder: string): AsyncGenerator<string> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
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

/** Smaller than asked for where the folder has not as much. */
export async function makeImage(
  file: string,
  { folder, sizeBytes, seed }: { folder: string; sizeBytes: number; seed: number },
): Promise<Image> {
  const files: string[] = [];
  for await (const source of filesBelow(folder)) files.push(source);
  shuffle(files, randomFrom(seed));
  const image = await open(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL);
  let [at, fileCount] = [0, 0];
  for (const source of files) {
    if (at >= sizeBytes) break;
    if (!(await lstat(source).catch(() => null))?.isFile()) continue;
    const end = await copyInto(image, source, at, sizeBytes);
    at = Math.min(sizeBytes, Math.ceil(end / CLUSTER_BYTES) * CLUSTER_BYTES);
    fileCount += 1;
  }
  await image.truncate(at);
  await image.sync();
  await image.close();
  return { file, sizeBytes: at, fileCount };
}

/** Where it ends. */
async function copyInto(image: FileHandle, source: string, from: number, limit: number): Promise<number> {
  let at = from;
  for await (const piece of createReadStream(source, { highWaterMark: PIECE_BYTES }) as AsyncIterable<Buffer>) {
    const length = Math.min(piece.length, limit - at);
    await image.write(piece, 0, length, at);
    at += length;
    if (at === limit) break;
  }
  return at;
}
