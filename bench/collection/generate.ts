/** Writes the repository of a model: packs with headers, footers and payloads of a few bytes, maps, manifests, index. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { loadIndex } from '../../engines/repository/index/load-index.ts';
import { openRepository } from '../../engines/repository/open-repository.ts';
import { openPageSink } from '../../engines/repository/pack/record-sink.ts';
import { createMapWriter } from '../../engines/repository/restore-point/map-writer.ts';
import { layout } from '../../engines/repository/storage/layout.ts';
import { openStorage, type Storage } from '../../engines/repository/storage/storage.ts';
import { lineageId } from '../../schema/domain/ids.ts';
import { digestOf, sumOf } from '../../schema/repository/digest.ts';
import { parseRepositoryFile, type RepositoryFile } from '../../schema/repository/documents.ts';
import { DIGEST_BYTES, PACK_HEADER_BYTES, RECORD_HEADER_BYTES } from '../../schema/repository/limits.ts';
import { encodeFooter, encodePackHeader, type FooterEntry } from '../../schema/repository/pack.ts';
import { encodeRecordHeader } from '../../schema/repository/record.ts';
import { plainVault } from '../../schema/repository/vault.ts';
import { MAIN } from '../../tests/fixtures/repository/test-repository.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { idOf, packName } from '../index/generator.ts';
import { writeManifestFile } from '../manifests.ts';
import * as model from './model.ts';

const { LEAF_BLOCKS, PACK_RECORDS, PAYLOAD_BYTES, VMS, ROUNDS } = model;
const BLOCK_BYTES = 2 ** 20;
const RECORD_BYTES = RECORD_HEADER_BYTES + PAYLOAD_BYTES;
const PAYLOAD = Buffer.alloc(PAYLOAD_BYTES, 'x');
const PAYLOAD_SUM = sumOf(PAYLOAD);

export async function generate(folder: string, indexFolder: string, shape: model.Shape): Promise<void> {
  const storage = openStorage({ kind: 'folder', folder });
  const file = await makeEmpty(storage, indexFolder);
  writeBlockPacks(folder, file.uuid, shape);
  await writeMaps(storage, folder, file.uuid, shape);
  const index = await loadIndex({ storage, file, indexFolder, seams: testSeams() }, []);
  await index.flush();
  await index.idle();
  await index.close();
}

async function makeEmpty(storage: Storage, indexFolder: string): Promise<RepositoryFile> {
  const of = { storage, repositoryId: MAIN, secret: null, indexFolder, seams: testSeams() };
  await (await openRepository(of)).close();
  return parseRepositoryFile(storage.staging.readTextSync(layout.repositoryFile), 'repository.json');
}

function writeBlockPacks(folder: string, uuid: string, shape: model.Shape): void {
  let [pack, entries]: [number, FooterEntry[]] = [0, []];
  const finish = (): void => {
    const file = path.join(folder, layout.closedPack('blocks', packName(pack)));
    mkdirSync(path.dirname(file), { recursive: true });
    const records = entries.flatMap(({ header }) => [header, PAYLOAD]);
    const footer = encodeFooter(entries, PACK_HEADER_BYTES + entries.length * RECORD_BYTES);
    const header = encodePackHeader({ contents: 'blocks', uuid, packId: packName(pack) });
    writeFileSync(file, Buffer.concat([header, ...records, footer]));
    [pack, entries] = [pack + 1, []];
  };
  for (const { vm, round, firstRecord } of model.everythingWritten(shape))
    for (let record = firstRecord; record < firstRecord + LEAF_BLOCKS; record += 1) {
      entries.push({ header: headerOf(record, vm, round), offset: PACK_HEADER_BYTES + entries.length * RECORD_BYTES });
      if (entries.length === PACK_RECORDS) finish();
    }
  if (entries.length > 0) finish();
}

const headerOf = (record: number, vm: number, round: number): Buffer =>
  encodeRecordHeader({
    kind: 'block',
    codec: 'zstd',
    rawLength: BLOCK_BYTES,
    storedLength: PAYLOAD_BYTES,
    restorePointId: model.pointIdOf(vm, round),
    id: idOf(record),
    payloadSum: PAYLOAD_SUM,
  });

/** And the manifests that name them. */
async function writeMaps(storage: Storage, folder: string, uuid: string, shape: model.Shape): Promise<void> {
  const sink = openPageSink({ storage, vault: plainVault, uuid, seams: testSeams() });
  const written = model.everythingWritten(shape);
  const leaves = Array.from({ length: VMS }, (): Buffer[] => []);
  const stored = new Set<string>();
  for (let number = 0; number < VMS * ROUNDS; number += 1) {
    const [round, vm] = [Math.floor(number / VMS), number % VMS];
    const restorePointId = model.pointIdOf(vm, round);
    const put = (page: Uint8Array): Buffer => {
      const digest = digestOf(page);
      const key = digest.toString('latin1');
      // The sink keeps what it is given until it is written, and a map writer uses its pages again.
      const payload = Buffer.from(page);
      if (!stored.has(key)) sink.append({ digest, codec: 'none', rawLength: page.byteLength, payload, restorePointId });
      stored.add(key);
      return digest;
    };
    for (const _ of model.changedLeaves(shape, vm, round)) {
      const { leaf, firstRecord } = written.next().value as model.Written;
      leaves[vm]![leaf] = put(leafPage(firstRecord));
    }
    const writer = createMapWriter(put);
    for (const digest of leaves[vm]!) writer.addLeafDigest(digest);
    const sizeBytes = shape.leaves * LEAF_BLOCKS * BLOCK_BYTES;
    const disk = { ...writer.finish(), sizeBytes, blockSize: BLOCK_BYTES };
    const lineage = lineageId(String(vm).padStart(16, '0'));
    writeManifestFile(folder, { restorePointId, lineage, number, vmId: model.vmIdOf(vm), disk });
    await sink.sync();
  }
  await sink.close();
}

function leafPage(firstRecord: number): Buffer {
  const page = Buffer.alloc(LEAF_BLOCKS * DIGEST_BYTES);
  for (let at = 0; at < LEAF_BLOCKS; at += 1) page.set(idOf(firstRecord + at), at * DIGEST_BYTES);
  return page;
}
