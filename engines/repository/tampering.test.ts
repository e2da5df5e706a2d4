/** What a forger does to an encrypted repository who has the medium, and no key. */
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { RestorePointId } from '../../schema/domain/ids.ts';
import { sumOf } from '../../schema/repository/digest.ts';
import { decodeRecordHeader, encodeRecordHeader } from '../../schema/repository/record.ts';
import { plainVault } from '../../schema/repository/vault.ts';
import { packsOf, placeOfBlock } from '../../tests/fixtures/repository/damage.ts';
import { handRestore } from '../../tests/fixtures/repository/hand-restore.ts';
import { codes, inEachTest } from '../../tests/fixtures/repository/in-each-test.ts';
import { KEY_FILE } from '../../tests/fixtures/repository/keys.ts';
import {
  createTestRepository,
  DISK,
  MIB,
  planOf,
  type TestRepository,
} from '../../tests/fixtures/repository/test-repository.ts';
import { diskOf, verbsOf } from '../../tests/fixtures/repository/verbs.ts';
import { createPackWriter } from './pack/pack-writer.ts';

let world: TestRepository;
const { openPoint, assign, send, seal, sealedFull, check } = inEachTest(
  () => createTestRepository({ secret: KEY_FILE }),
  (made) => (world = made),
);
const at = (...names: string[]): string => join(world.folder, ...names);

describe('a record', () => {
  /** The pack of the one block there is, and where the record lies in it. */
  async function onlyRecord() {
    const sealed = await sealedFull(1, diskOf(1));
    await world.reopen();
    const { restoreSource } = world.repository;
    const { restorePointId: id } = sealed;
    await restoreSource.begin('look', { purpose: 'restore', restorePointId: id, diskKey: DISK });
    const { places } = await restoreSource.resolve('look', 0);
    await restoreSource.end('look');
    const { pack, offset, storedLength } = places[0]!;
    const path = at('packs', pack.slice(0, 2), pack);
    const bytes = await readFile(path);
    const header = decodeRecordHeader(bytes.subarray(offset))!;
    return { id, pack, path, bytes, offset, header, payloadAt: offset + 128, storedLength };
  }
  const restored = (id: RestorePointId): Promise<Buffer> => handRestore(world, id, DISK);

  test('that rotted is damaged', async () => {
    const { id, path, bytes, payloadAt } = await onlyRecord();
    expect((await restored(id)).equals(diskOf(1))).toBe(true);
    bytes[payloadAt + 5]! ^= 1;
    await writeFile(path, bytes);
    await expect(restored(id)).rejects.toMatchObject(codes('DAMAGED_BLOCK', 'its payload is damaged'));
  });

  test('that was changed by somebody who made its sum right was tampered with', async () => {
    const { id, path, bytes, offset, header, payloadAt, storedLength } = await onlyRecord();
    bytes[payloadAt + 5]! ^= 1;
    const payloadSum = sumOf(bytes.subarray(payloadAt, payloadAt + storedLength));
    bytes.set(encodeRecordHeader({ ...header, payloadSum }), offset);
    await writeFile(path, bytes);
    await expect(restored(id)).rejects.toMatchObject(codes('TAMPERED', 'authentication tag'));
  });

  describe('that was tampered with is told as such, and healed by the next session', () => {
    /** As somebody would who makes the sums right. */
    async function forge(shelf: 'packs' | 'meta', pack: string, offset: number): Promise<void> {
      const path = at(shelf, pack.slice(0, 2), pack);
      const bytes = await readFile(path);
      const header = decodeRecordHeader(bytes.subarray(offset))!;
      bytes[offset + 128 + 5]! ^= 1;
      const payloadSum = sumOf(bytes.subarray(offset + 128, offset + 128 + header.storedLength));
      bytes.set(encodeRecordHeader({ ...header, payloadSum }), offset);
      await writeFile(path, bytes);
    }
    const forgeBlock = async (id: RestorePointId): Promise<void> => {
      const { pack, offset } = await placeOfBlock(world, id, 1);
      await forge('packs', pack, offset);
    };
    const forgePage = async (): Promise<void> => {
      const [pack] = await packsOf(world, 'pages');
      await forge('meta', pack!, 64);
    };

    test.each([
      ['a block, found by a restore', forgeBlock, 'restore', [{ offset: MIB, length: MIB }]],
      ['a block, found by a check', forgeBlock, 'check', [{ offset: MIB, length: MIB }]],
      ['a map page, found by a restore', forgePage, 'restore', [{ offset: 0, length: 3 * MIB }]],
      ['a map page, found by a check', forgePage, 'check', [{ offset: 0, length: 3 * MIB }]],
      ['a map page, found by the session', forgePage, 'session', [{ offset: 0, length: 3 * MIB }]],
    ] as const)('%s', async (_, tamper, finder, read) => {
      const disk = diskOf(3);
      const full = await sealedFull(1, disk);
      await world.reopen();
      await tamper(full.restorePointId);
      await world.reopen();
      if (finder === 'check')
        expect((await check()).damages).toMatchObject([
          {
            why: { code: 'TAMPERED', message: 'its authentication tag is wrong' },
            restorePoints: [full.restorePointId],
          },
        ]);
      if (finder !== 'session') {
        // Found once, it stays told as what it was, also by the next process.
        for (const loseIndex of [false, true]) {
          await expect(restored(full.restorePointId)).rejects.toMatchObject(codes('TAMPERED'));
          await world.reopen({ loseIndex });
        }
        await check();
        expect(world.repository.markOf(full.restorePointId)).toMatchObject({
          state: 'damaged',
          why: { code: 'TAMPERED' },
        });
      }
      const point = await openPoint(2);
      const base = { mode: 'cbt', baseRestorePointId: full.restorePointId } as const;
      const assignment = await assign(point, planOf(disk.length, base));
      expect(assignment.alsoRead).toEqual(read);
      await send({ assignment, disk, changed: [] });
      const sealed = await seal(point);
      for (const loseIndex of [false, true]) {
        for (const { restorePointId } of [full, sealed])
          expect((await restored(restorePointId)).equals(disk)).toBe(true);
        await world.reopen({ loseIndex });
      }
      await check();
      expect(world.repository.markOf(full.restorePointId)).toBeNull();
    });
  });

  test('in the clear is no record of it, whatever pack it lies in', async () => {
    const { id, path, header, payloadAt: _at, pack } = await onlyRecord();
    await rm(path);
    const uuid = JSON.parse(await readFile(at('repository.json'), 'utf8')).uuid as string;
    const forged = 'f'.repeat(32);
    const writer = createPackWriter(world.storage, 'blocks', uuid, forged);
    const { restorePointId: by, id: recordId } = header;
    const record = { kind: 'block', codec: 'none', rawLength: MIB, id: recordId, restorePointId: by } as const;
    const { header: bytes, parts } = plainVault.sealRecord({ ...record, payload: diskOf(1, 'forged') });
    writer.append(bytes, ...parts);
    await writer.publish();
    await world.reopen({ loseIndex: true });
    expect(pack).not.toBe(forged);
    await expect(restored(id)).rejects.toMatchObject(codes('TAMPERED', 'not encrypted'));
  });
});

describe('a document', () => {
  const manifestOf = (vm: string, id: string): string => at('manifests', world.vault.nameOf(vm), id);
  const VM = '22222222-0000-4000-8000-000000000001';
  const listed = (): string[] => world.repository.listSealed().map(({ restorePointId: id }) => id);

  test('serves under its own name only, and what is wrong with one hinders no other', async () => {
    const [first, second] = [await sealedFull(1, diskOf(1)), await sealedFull(2, diskOf(1, 'b'))];
    const [one, two] = [first, second].map(({ restorePointId: id }) => manifestOf(VM, id)) as [string, string];
    await cp(one, two);
    await mkdir(manifestOf('another', '..'), { recursive: true });
    await cp(one, manifestOf('another', first.restorePointId));
    await world.reopen();
    expect(listed()).toEqual([first.restorePointId]);
    expect(await readFile(two, 'utf8')).toBe(await readFile(one, 'utf8'));
    await sealedFull(3, diskOf(1));
  });

  test('in the clear is none, of whatever role', async () => {
    const plain = await createTestRepository();
    const verbs = verbsOf(() => plain);
    const { restorePointId: id } = await verbs.sealedFull(1, diskOf(1));
    const point = await verbs.openPoint(2);
    const buried = await verbs.openPoint(3);
    await verbs.abort(buried);
    await plain.repository.close();
    await mkdir(manifestOf(VM, '..'), { recursive: true });
    await cp(join(plain.folder, 'manifests', VM, id), manifestOf(VM, id));
    await cp(join(plain.folder, 'open', point.restorePointId), at('open', point.restorePointId), { recursive: true });
    await cp(join(plain.folder, 'aborted', buried.restorePointId), at('aborted', buried.restorePointId));
    await plain.close();
    await world.reopen();
    expect([listed(), world.repository.listOpen()]).toEqual([[], []]);
    expect((await openPoint(3)).restorePointId).not.toBe(buried.restorePointId);
  });

  test('a ledger of which a frame was taken out is not gone on with', async () => {
    const point = await openPoint(1);
    const disk = diskOf(70);
    await send({ assignment: await assign(point, planOf(disk.length)), disk });
    const path = at('open', point.restorePointId, 'ledger');
    const ledger = await readFile(path);
    const first = 64 + ledger.readUInt32LE(8);
    expect(first).toBeLessThan(ledger.length);
    await writeFile(path, ledger.subarray(first));
    await world.reopen();
    expect(world.repository.listOpen()).toEqual([]);
    // Cut at its end, as a power loss may, it is gone on with from there.
    await writeFile(path, ledger.subarray(0, first));
    await world.reopen();
    const again = await assign(point, planOf(disk.length), 2);
    expect((await send({ assignment: again, disk })).windowsSent).toBe(1);
    await seal(point);
    expect((await handRestore(world, point.restorePointId, DISK)).equals(disk)).toBe(true);
  });
});
