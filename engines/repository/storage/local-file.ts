/** Files of a folder, opened: to read, and to append to. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { FileSystem } from './file-system.ts';
import { errnoOf, guarded, storageError } from './files.ts';
import { folderOf, type LocalFolder } from './local-folder.ts';
import type { StagingFile } from './staging.ts';
import type { StoredFile } from './store.ts';

const WRITE_BYTES = 1024 * 1024;

/** Null when there is none. */
export async function openStoredFile(folder: LocalFolder, name: string): Promise<StoredFile | null> {
  const path = folder.pathOf(name);
  const { fs } = folder;
  try {
    const fd = await fs.open(path, 'r');
    return {
      lengthBytes: () => guarded(path, () => fs.fileBytes(fd)),
      read: (into, position) => guarded(path, () => readFully(fs, fd, into, position)),
      close: () => guarded(path, () => fs.close(fd)),
    };
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw storageError(error, path);
  }
}

/** Reads until `into` is full or the file ends; bytes read. */
async function readFully(fs: FileSystem, fd: number, into: Uint8Array, position: number): Promise<number> {
  let at = 0;
  while (at < into.byteLength) {
    const got = await fs.read(fd, into, at, into.byteLength - at, position + at);
    if (got === 0) break;
    at += got;
  }
  return at;
}

/** A new file; the folder is made where somebody removed it. */
export function createStagingFile(folder: LocalFolder, name: string): StagingFile {
  const path = folder.pathOf(name);
  try {
    return new LocalStagingFile(folder, name, openNew(folder, name), 0);
  } catch (error) {
    throw storageError(error, path);
  }
}

function openNew(folder: LocalFolder, name: string): number {
  const path = folder.pathOf(name);
  try {
    return folder.fs.openSync(path, 'wx+');
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
  folder.ensureSync(folderOf(name));
  return folder.fs.openSync(path, 'wx+');
}

/** Opens or makes it. */
export function openStagingFile(folder: LocalFolder, name: string): Promise<StagingFile> {
  const path = folder.pathOf(name);
  const { fs } = folder;
  return guarded(path, async () => {
    const fd = await folder.within(folderOf(name), async () => {
      try {
        return await fs.open(path, 'r+');
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error;
      }
      return fs.open(path, 'wx+');
    });
    return new LocalStagingFile(folder, name, fd, await fs.fileBytes(fd));
  });
}

class LocalStagingFile implements StagingFile {
  readonly name: string;
  readonly #folder: LocalFolder;
  readonly #path: string;
  readonly #fd: number;
  #lengthBytes: number;
  /** At the last sync that succeeded. What was there when it was opened counts, whoever wrote it. */
  #syncedBytes: number;
  #nameDurable = false;
  #broken: unknown = null;
  #closed = false;

  constructor(folder: LocalFolder, name: string, fd: number, lengthBytes: number) {
    this.name = name;
    this.#folder = folder;
    this.#path = folder.pathOf(name);
    this.#fd = fd;
    this.#lengthBytes = lengthBytes;
    this.#syncedBytes = lengthBytes;
  }

  lengthBytes(): number {
    return this.#lengthBytes;
  }

  isBroken(): boolean {
    return this.#broken !== null;
  }

  #checkUsable(): void {
    if (this.#broken === null && !this.#closed) return;
    const message = `${this.#path} was abandoned after a failed write`;
    throw new TidemarkError('STORAGE_ERROR', message, { path: this.#path }, this.#broken);
  }

  /** After a failure; whether that worked. */
  #cutTo(lengthBytes: number): boolean {
    try {
      this.#folder.fs.ftruncateSync(this.#fd, lengthBytes);
      this.#lengthBytes = lengthBytes;
      return true;
    } catch {
      return false;
    }
  }

  appendSync(...parts: Uint8Array[]): number {
    this.#checkUsable();
    const offset = this.#lengthBytes;
    try {
      for (const part of parts) this.#writeSync(part);
      return offset;
    } catch (error) {
      throw this.#notAppended(error, offset);
    }
  }

  #writeSync(bytes: Uint8Array): void {
    const { fs } = this.#folder;
    for (let at = 0; at < bytes.byteLength;) {
      const length = Math.min(WRITE_BYTES, bytes.byteLength - at);
      const written = fs.writeSync(this.#fd, bytes, at, length, this.#lengthBytes);
      at += written;
      this.#lengthBytes += written;
    }
  }

  async append(bytes: Uint8Array): Promise<number> {
    this.#checkUsable();
    const { fs } = this.#folder;
    const offset = this.#lengthBytes;
    try {
      for (let at = 0; at < bytes.byteLength;)
        at += await fs.write(this.#fd, bytes, at, bytes.byteLength - at, offset + at);
      this.#lengthBytes += bytes.byteLength;
      return offset;
    } catch (error) {
      throw this.#notAppended(error, offset);
    }
  }

  #notAppended(error: unknown, offset: number): unknown {
    if (!this.#cutTo(offset)) this.#broken = error;
    return storageError(error, this.#path);
  }

  read(into: Uint8Array, position: number): Promise<number> {
    return guarded(this.#path, () => readFully(this.#folder.fs, this.#fd, into, position));
  }

  cutBack(lengthBytes: number): Promise<void> {
    return guarded(this.#path, async () => {
      await this.#folder.fs.ftruncate(this.#fd, lengthBytes);
      this.#lengthBytes = lengthBytes;
      this.#syncedBytes = Math.min(this.#syncedBytes, lengthBytes);
    });
  }

  sync(): Promise<void> {
    return this.#syncBy((fd) => this.#folder.fs.fdatasync(fd));
  }

  async finish(): Promise<void> {
    await this.#syncBy((fd) => this.#folder.fs.fsync(fd));
    this.close();
  }

  async #syncBy(syncFile: (fd: number) => Promise<void>): Promise<void> {
    this.#checkUsable();
    const lengthBytes = this.#lengthBytes;
    try {
      await syncFile(this.#fd);
      if (!this.#nameDurable) await this.#folder.sync(folderOf(this.name));
    } catch (error) {
      // What the sync lost may still be read from memory, and would pass for sound at the next start.
      this.#broken = error;
      if (!this.#closed) this.#cutTo(this.#syncedBytes);
      throw storageError(error, this.#path);
    }
    this.#nameDurable = true;
    this.#syncedBytes = lengthBytes;
  }

  close(): void {
    if (!this.#closed) this.#folder.fs.closeSync(this.#fd);
    this.#closed = true;
  }

  discardSync(): void {
    this.close();
    this.#folder.fs.unlinkSync(this.#path);
  }
}
