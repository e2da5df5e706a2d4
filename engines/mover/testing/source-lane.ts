/** Source lane of the tests: reads a raw file named by the model of a simulated access. */
import { open } from 'node:fs/promises';
import { parentPort } from 'node:worker_threads';
import type { AllocatedExtent, Extent } from '../../../schema/domain/extents.ts';
import type { DiskReader } from '../../../schema/domain/seams.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { runSourceLane } from '../source/lane.ts';

/** `changed`: for CBT; `delayMs`: per read; `allocated`: default all data; `crashAt`: this offset ends the thread, once (a marker file). */
export type TestDisk = {
  file: string;
  changed?: Extent[];
  allocated?: AllocatedExtent[];
  delayMs?: number;
  crashOnce?: { offset: number; marker: string };
};

async function openReader(access: { sizeBytes: number; data: { via: string; model?: string } }): Promise<DiskReader> {
  const disk = JSON.parse(access.data.model!) as TestDisk;
  const handle = await open(disk.file, 'r');
  return {
    sizeBytes: access.sizeBytes,
    async *allocatedExtents(of) {
      yield* clipped(disk.allocated ?? [{ offset: 0, length: access.sizeBytes, state: 'data' as const }], of);
    },
    async *changedExtents(of) {
      yield* clipped(disk.changed ?? [], of);
    },
    async read(of, into) {
      if (disk.delayMs) await new Promise((resolve) => setTimeout(resolve, disk.delayMs));
      if (disk.crashOnce && of.offset <= disk.crashOnce.offset && disk.crashOnce.offset < of.offset + of.length) {
        const first = await open(disk.crashOnce.marker, 'wx').catch(() => null);
        if (first) process.exit(7);
      }
      const { bytesRead } = await handle.read(into, 0, of.length, of.offset);
      if (bytesRead !== of.length) throw new Error(`short read at ${of.offset}`);
    },
    close: () => handle.close(),
  };
}

function* clipped<T extends Extent>(extents: readonly T[], of: Extent): Generator<T> {
  for (const extent of extents) {
    const offset = Math.max(extent.offset, of.offset);
    const end = Math.min(extent.offset + extent.length, of.offset + of.length);
    if (end > offset) yield { ...extent, offset, length: end - offset };
  }
}

runSourceLane({ port: parentPort!, seams: testSeams(), openReader });
