/** Other tools on the same disk, each as its users have it by default; see README.md for why that is fair. */
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { shell, versionOf } from '../repository/measure.ts';
import { borgBeside, resticIn } from '../repository/peers.ts';

export type Peer = {
  readonly name: string;
  readonly version: string;
  /** What it wrote. */
  readonly folder: string;
  /** An empty repository in place of the one there was. */
  readonly fresh: () => Promise<unknown>;
  readonly backUp: () => Promise<unknown>;
  /** The newest backup below a folder; null: it is no backup tool. */
  restore: ((into: string) => Promise<unknown>) | null;
};

/** `file`: the disk. Those that are installed. */
export async function findPeers(root: string, file: string): Promise<Peer[]> {
  const peers: Peer[] = [];
  for (const [name, asked, make] of [
    ['restic', ['version'], restic],
    ['borg', ['--version'], borg],
    ['qemu-img convert', ['--version'], qemuImg],
  ] as const) {
    const version = await versionOf(name.split(' ')[0]!, asked);
    console.log(version ?? `${name} is not installed: left out`);
    const folder = path.join(root, name.split(' ')[0]!);
    if (version !== null) peers.push({ name, version, folder, ...make(folder, file) });
  }
  return peers;
}

type Verbs = Pick<Peer, 'fresh' | 'backUp' | 'restore'>;

/** Version 2 repository, compression auto (zstd), always encrypted; the file's time has changed, so that it is read. */
function restic(folder: string, file: string): Verbs {
  const { cache, run } = resticIn(folder);
  return {
    fresh: async () => {
      for (const old of [folder, cache]) await rm(old, { recursive: true, force: true });
      await run('init');
    },
    backUp: () => run('backup', file),
    restore: (into) => run('restore', 'latest', '--target', into),
  };
}

/** lz4, no encryption: the least it can do. */
function borg(folder: string, file: string): Verbs {
  const { base, environment, run } = borgBeside(folder);
  let archive = 0;
  return {
    fresh: async () => {
      for (const old of [folder, base]) await rm(old, { recursive: true, force: true });
      await run('init', '--encryption', 'none', folder);
    },
    backUp: () => run('create', '--files-cache', 'disabled', `${folder}::a${(archive += 1)}`, file),
    restore: (into) => shell('cd "$1" && exec borg extract "$2"', [into, `${folder}::a${archive}`], environment),
  };
}

/** Raw to raw, and what it wrote synced: a copy, neither compressed nor checked. */
function qemuImg(folder: string, file: string): Verbs {
  const copy = path.join(folder, 'copy.raw');
  return {
    fresh: async () => {
      await rm(folder, { recursive: true, force: true });
      await mkdir(folder);
    },
    backUp: () => shell('qemu-img convert -t writeback -f raw -O raw "$1" "$2" && sync "$2"', [file, copy]),
    restore: null,
  };
}
