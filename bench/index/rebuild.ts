/** Makes an index from the footers of real packs. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { loadIndex } from '../../engines/repository/index/load-index.ts';
import { layout } from '../../engines/repository/storage/layout.ts';
import { openStorage } from '../../engines/repository/storage/storage.ts';
import { repositoryId, type RestorePointId } from '../../schema/domain/ids.ts';
import { sumOf } from '../../schema/repository/digest.ts';
import { newRepositoryFile } from '../../schema/repository/documents.ts';
import { PACK_HEADER_BYTES, RECORD_HEADER_BYTES } from '../../schema/repository/limits.ts';
import { encodeFooter, encodePackHeader } from '../../schema/repository/pack.ts';
import { encodeRecordHeader } from '../../schema/repository/record.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { idOf, PACK_RECORDS, packName } from './generator.ts';

const PAYLOAD = Buffer.alloc(1);
const RECORD_BYTES = RECORD_HEADER_BYTES + PAYLOAD.length;

/** Records per second. */
export async function rebuildRate(folder: string, packCount: number): Promise<number> {
  const file = newRepositoryFile(repositoryId('bench'), '0'.repeat(32), '');
  for (let pack = 0; pack < packCount; pack += 1) {
    const path = `${folder}/${layout.closedPack('blocks', packName(pack))}`;
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, packBytes(pack, file.uuid));
  }
  const startedMs = performance.now();
  const index = await loadIndex(
    { storage: openStorage({ kind: 'folder', folder }), file, indexFolder: `${folder}/index`, seams: testSeams() },
    [],
  );
  const seconds = (performance.now() - startedMs) / 1000;
  if (index.recordCount() !== packCount * PACK_RECORDS) throw new Error(`${index.recordCount()} records`);
  await index.close();
  return (packCount * PACK_RECORDS) / seconds;
}

function packBytes(pack: number, uuid: string): Buffer {
  const restorePointId = '0'.repeat(32) as RestorePointId;
  const payloadSum = sumOf(PAYLOAD);
  const entries = Array.from({ length: PACK_RECORDS }, (_, at) => ({
    header: encodeRecordHeader({
      kind: 'block',
      codec: 'none',
      rawLength: 1,
      storedLength: 1,
      restorePointId,
      id: idOf(pack * PACK_RECORDS + at),
      payloadSum,
    }),
    offset: PACK_HEADER_BYTES + at * RECORD_BYTES,
  }));
  const records = entries.flatMap(({ header }) => [header, PAYLOAD]);
  const header = encodePackHeader({ contents: 'blocks', uuid, packId: packName(pack) });
  return Buffer.concat([header, ...records, encodeFooter(entries, PACK_HEADER_BYTES + PACK_RECORDS * RECORD_BYTES)]);
}
