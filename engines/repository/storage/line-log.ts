/** A staging file that grows by lines. What a crash tore off at its end is cut; a damaged line is passed over. */
import { StringDecoder } from 'node:string_decoder';
import type { Log } from '../../../schema/domain/seams.ts';
import { encodeLine } from '../../../schema/repository/checked-lines.ts';
import { MAX_LINE_BYTES } from '../../../schema/repository/limits.ts';
import { isReadFailure } from './files.ts';
import type { Staging, StagingFile } from './staging.ts';
import type { StoredFile } from './store.ts';

const PIECE_BYTES = 256 * 1024;

export type LineLog = {
  /** Durable when it resolves; nothing of it counts when it fails. */
  append(values: readonly unknown[]): Promise<void>;
  /** It becomes these, in one step. */
  rewrite(values: readonly unknown[]): Promise<void>;
  close(): Promise<void>;
};

/** `onLine`: each line that ends with a line feed, in order; false when it is damaged. Makes nothing. */
export async function openLineLog(
  { staging, log }: { staging: Staging; log: Log },
  name: string,
  onLine: (line: string) => boolean,
): Promise<LineLog> {
  const path = staging.locate(name);
  const sound: string[] = [];
  try {
    const endBytes = await readLines(staging, name, (line) => {
      if (onLine(line)) sound.push(line);
      else log.error('damaged line passed over', { path, line: line.slice(0, 200) });
    });
    return createLineLog(staging, name, endBytes);
  } catch (error) {
    if (!isReadFailure(error)) throw error;
    log.error('the end of a list cannot be read, and is left out', { path, error: String(error) });
    const text = sound.map((line) => `${line}\n`).join('');
    await staging.replace(name, text);
    return createLineLog(staging, name, Buffer.byteLength(text));
  }
}

/** Where the last whole line ends. */
async function readLines(staging: Staging, name: string, onLine: (line: string) => void): Promise<number> {
  const file = await staging.open(name);
  if (!file) return 0;
  try {
    return await linesIn(file, onLine);
  } finally {
    await file.close();
  }
}

async function linesIn(file: StoredFile, onLine: (line: string) => void): Promise<number> {
  const piece = Buffer.alloc(PIECE_BYTES);
  const decoder = new StringDecoder();
  let rest = '';
  let endBytes = 0;
  for (let at = 0; ;) {
    const got = await file.read(piece, at);
    if (got === 0) return endBytes;
    const lastFeed = piece.subarray(0, got).lastIndexOf(0x0a);
    if (lastFeed >= 0) endBytes = at + lastFeed + 1;
    const lines = (rest + decoder.write(piece.subarray(0, got))).split('\n');
    // Longer than any line: damaged, whatever follows.
    rest = lines.pop()!.slice(0, MAX_LINE_BYTES);
    for (const line of lines) onLine(line);
    at += got;
  }
}

function createLineLog(staging: Staging, name: string, lengthBytes: number): LineLog {
  let file: StagingFile | null = null;
  let endBytes = lengthBytes;
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = (work: () => Promise<void>): Promise<void> => {
    const turn = last.then(work);
    last = turn.catch(() => undefined);
    return turn;
  };

  function letGo(): void {
    file?.close();
    file = null;
  }

  async function open(): Promise<StagingFile> {
    const opened = await staging.openFile(name);
    try {
      // What a crash or a failed try left behind the last line.
      if (opened.lengthBytes() > endBytes) await opened.cutBack(endBytes);
    } catch (error) {
      opened.close();
      throw error;
    }
    file = opened;
    return opened;
  }

  async function append(text: string): Promise<void> {
    if (file?.isBroken()) letGo();
    const to = file ?? (await open());
    await to.append(Buffer.from(text));
    await to.sync();
    endBytes = to.lengthBytes();
  }

  return {
    append: (values) => inTurn(() => append(textOf(values))),
    rewrite: (values) =>
      inTurn(async () => {
        const text = textOf(values);
        letGo();
        await staging.replace(name, text);
        endBytes = Buffer.byteLength(text);
      }),
    close: () => inTurn(async () => letGo()),
  };
}

const textOf = (values: readonly unknown[]): string => values.map(encodeLine).join('');
