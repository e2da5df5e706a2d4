/** A repository whose packs and manifests lie in an object store: nothing above Store knows. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { checkSealed } from '../../tests/fixtures/repository/check-told.ts';
import { FaultyDisk } from '../../tests/fixtures/repository/faulty-disk.ts';
import { createMemoryStore, type Objects } from '../../tests/fixtures/repository/memory-store.ts';
import {
  beginOn,
  drive,
  end,
  FOLDER,
  storageOn,
  threeDays,
  type Told,
} from '../../tests/fixtures/repository/run-life.ts';
import type { Storage } from './storage/storage.ts';

test('backups are sealed into it, and restored by a process that finds nothing else', async () => {
  const root = await mkdtemp(join(tmpdir(), 'td-object-store-'));
  onTestFinished(() => rm(root, { recursive: true }));
  const noIndex = join(root, 'none');
  const runs = threeDays();
  const told: Told[] = [];
  const objects: Objects = new Map();
  const open = (disk: FaultyDisk): Storage => {
    const { staging } = storageOn(disk);
    return { staging, store: createMemoryStore(objects, staging) };
  };
  const disk = new FaultyDisk();
  const life = await beginOn(open(disk), noIndex, 1);
  for (const run of runs) await drive(life, run, { assignment: 1, tell: (one) => told.push(one) });
  await checkSealed(life, told, runs);
  await end(life);
  // Of packs and manifests staging has nothing after a clean end.
  const local = [...disk.files().keys()].map((path) => path.slice(FOLDER.length + 1));
  expect(local.filter((name) => /^(packs|meta|manifests|open)\//.test(name))).toEqual([]);
  const shelves = new Set([...objects.keys()].map((name) => name.slice(0, name.indexOf('/'))));
  expect(shelves).toEqual(new Set(['manifests', 'meta', 'packs']));
  await checkSealed(await beginOn(open(disk.afterCrash('nothing')), noIndex, 2), told, runs);
});
