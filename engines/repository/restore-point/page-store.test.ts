import { expect, test } from 'vitest';
import { restorePointId } from '../../../schema/domain/ids.ts';
import type { RecordSink } from '../../../schema/domain/seams.ts';
import type { DigestIndex } from './digest-index.ts';
import { createPageStore } from './page-store.ts';

const writer = restorePointId('1'.repeat(32));

test('a page is written once until its writer fails, and again by the next one', () => {
  let appended = 0;
  const append = (): unknown => ({ offset: (appended += 1) });
  const store = createPageStore({ append } as unknown as RecordSink, { lookup: () => null } as unknown as DigestIndex);
  const page = Buffer.alloc(8192, 1);
  expect(store.put(page, writer)).toEqual(store.put(page, writer));
  expect(appended).toBe(1);
  store.forget();
  store.put(page, writer);
  expect(appended).toBe(2);
});
