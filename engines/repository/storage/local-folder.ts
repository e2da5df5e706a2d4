/**
 * Names in a folder, and what of them is durable. A new name is durable once its folder was fsynced, and that folder's
 * own name, and so on up. Which folders are is remembered: one that a dead process or a failed fsync left looks like any
 * other. Errors as they come; callers name the file with `guarded`.
 */
import { dirname, join } from 'node:path';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { FileSystem } from './file-system.ts';
import { errnoOf } from './files.ts';

/** Folder of a name; '' is the whole. */
export const folderOf = (name: string): string => (name.includes('/') ? dirname(name) : '');

export type FolderEntry = { name: string; isFolder: boolean };

export class LocalFolder {
  readonly root: string;
  readonly fs: FileSystem;
  #durable = new Set(['']);

  constructor(root: string, fs: FileSystem) {
    this.root = root;
    this.fs = fs;
  }

  pathOf(name: string): string {
    if (name === '') return this.root;
    if (name.split('/').some((part) => part === '' || part === '.' || part === '..'))
      throw new TidemarkError('BUG', `${name} is no name in a repository`, { name });
    return join(this.root, name);
  }

  /** Makes the names in a folder durable, and the folder's own. */
  async sync(folder: string): Promise<void> {
    await this.#makeDurable(folder);
    await this.#fsync(folder);
  }

  async #fsync(folder: string): Promise<void> {
    const fd = await this.fs.open(this.pathOf(folder), 'r');
    try {
      await this.fs.fsync(fd);
    } finally {
      await this.fs.close(fd);
    }
  }

  async #makeDurable(folder: string): Promise<void> {
    if (this.#durable.has(folder)) return;
    await this.#makeDurable(folderOf(folder));
    await this.#fsync(folderOf(folder));
    this.#durable.add(folder);
  }

  /** `work` makes a name in a folder, which is made, durably, where there is none. */
  async within<T>(folder: string, work: () => Promise<T>): Promise<T> {
    try {
      await this.ensure(folder);
      return await work();
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
    // Perhaps somebody removed the folder, or one above it.
    this.#durable = new Set(['']);
    await this.ensure(folder);
    return work();
  }

  /** Makes a folder, durably, where there is none. */
  async ensure(folder: string): Promise<void> {
    if (this.#durable.has(folder)) return;
    await this.ensure(folderOf(folder));
    try {
      await this.fs.mkdir(this.pathOf(folder));
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
    }
    await this.#makeDurable(folder);
  }

  /** As `ensure`, but not durably. */
  ensureSync(folder: string): void {
    if (folder === '') return;
    this.ensureSync(folderOf(folder));
    try {
      this.fs.mkdirSync(this.pathOf(folder));
      this.#durable.delete(folder);
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
    }
  }

  /** It and those in it are gone. */
  #forget(folder: string): void {
    for (const known of this.#durable)
      if (known === folder || known.startsWith(`${folder}/`)) this.#durable.delete(known);
  }

  /** What lies directly in a folder, sorted; none when it does not exist. */
  async list(folder: string): Promise<FolderEntry[]> {
    try {
      const entries = await this.fs.readdir(this.pathOf(folder));
      return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
  }

  async unlink(name: string): Promise<void> {
    try {
      await this.fs.unlink(this.pathOf(name));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
  }

  /** A file, or a folder with all that is in it. */
  async removeAll(name: string): Promise<void> {
    try {
      await this.unlink(name);
    } catch (error) {
      // POSIX and Linux differ in what unlinking a folder says.
      if (errnoOf(error) !== 'EISDIR' && errnoOf(error) !== 'EPERM') throw error;
      for (const entry of await this.list(name)) await this.removeAll(`${name}/${entry.name}`);
      this.#forget(name);
      await this.fs.rmdir(this.pathOf(name));
    }
  }
}
