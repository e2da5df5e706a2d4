/** A small JSON file that is replaced whole: after a crash it has its old or its new content, never a mixture. */
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';

export type DurableFile = {
  /** undefined: there is none. SyntaxError when it is damaged. */
  read(): Promise<unknown>;
  /** Durable when it returns; writes happen in the order of the calls. STORAGE_ERROR. */
  write(content: () => unknown): Promise<void>;
};

export function durableFile(path: string): DurableFile {
  let last: Promise<void> = Promise.resolve();

  const writeNow = async (content: unknown): Promise<void> => {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const file = await open(`${path}.new`, 'w', 0o600);
    try {
      await file.writeFile(`${JSON.stringify(content)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${path}.new`, path);
    const folder = await open(dirname(path), 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  };

  return {
    read: async () => {
      const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined;
        throw new TidemarkError('STORAGE_ERROR', `cannot read ${path}: ${error.message}`, { file: path }, error);
      });
      return text === undefined ? undefined : (JSON.parse(text) as unknown);
    },
    write: (content) => {
      const written = last
        .then(() => writeNow(content()))
        .catch((error: unknown) => {
          const why = messageOf(error);
          throw new TidemarkError('STORAGE_ERROR', `cannot write ${path}: ${why}`, { file: path }, error);
        });
      last = written.catch(() => undefined);
      return written;
    },
  };
}
