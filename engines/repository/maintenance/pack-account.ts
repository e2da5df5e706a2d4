/** How much of each pack is living, by the index. */
import { FOOTER_ENTRY_BYTES, RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import type { RecordIndex } from '../index/record-index.ts';
import type { Living } from './living.ts';

/** Bytes of records with their headers and entries in the footer. */
export type PackAccount = { liveBytes: number; liveRecords: number; deadBytes: number; locked: boolean };
export type Accounts = { packs: Map<string, PackAccount>; liveBytes: number; deadBytes: number };

const RECORD_OVERHEAD_BYTES = RECORD_HEADER_BYTES + FOOTER_ENTRY_BYTES;

/** Of copies of one record that which is answered is living at most; the others are needed by nobody. */
export async function accountPacks(
  records: Pick<RecordIndex, 'entries'>,
  living: Living,
  signal: AbortSignal,
): Promise<Accounts> {
  const accounts: Accounts = { packs: new Map(), liveBytes: 0, deadBytes: 0 };
  for await (const batch of records.entries()) {
    signal.throwIfAborted();
    for (let at = 0; at < batch.count; at += 1) {
      const id = batch.idOf(at);
      const isFirst = at === 0 || Buffer.compare(batch.idOf(at - 1), id) !== 0;
      const { pack, storedLength } = batch.read(at).place;
      const bytes = storedLength + RECORD_OVERHEAD_BYTES;
      const account = accountOf(accounts, pack);
      if (isFirst && living.isLive(id)) {
        account.liveBytes += bytes;
        account.liveRecords += 1;
        accounts.liveBytes += bytes;
        account.locked ||= living.isLocked(id);
      } else {
        account.deadBytes += bytes;
        accounts.deadBytes += bytes;
      }
    }
  }
  return accounts;
}

function accountOf({ packs }: Accounts, pack: string): PackAccount {
  const known = packs.get(pack);
  if (known) return known;
  const account = { liveBytes: 0, liveRecords: 0, deadBytes: 0, locked: false };
  packs.set(pack, account);
  return account;
}
