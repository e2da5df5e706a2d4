/** Restore lane of the tests: writes into a plain file. */
import { open } from 'node:fs/promises';
import { parentPort } from 'node:worker_threads';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { runRestoreLane } from '../restore-client/lane.ts';

runRestoreLane({
  port: parentPort!,
  seams: testSeams(),
  openWriter: async (access) => {
    if (access.data.via !== 'file') throw new Error('files only');
    const handle = await open(access.data.path, 'r+');
    return {
      sizeBytes: access.sizeBytes,
      write: async (offset, data) => void (await handle.write(data, 0, data.length, offset)),
      zero: async () => undefined,
      flush: () => handle.sync(),
      close: () => handle.close(),
    };
  },
});
