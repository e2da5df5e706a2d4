import { expect, test } from 'vitest';
import { digestOf } from '../../../schema/repository/digest.ts';
import { DigestSet } from './digest-set.ts';

test('each digest is new once, however many there are', () => {
  const set = new DigestSet();
  const digests = Array.from({ length: 5000 }, (_, at) => digestOf(Buffer.from(String(at))));
  expect(digests.filter((digest) => !set.add(digest))).toEqual([]);
  expect(digests.filter((digest) => set.add(digest))).toEqual([]);
});

test('digests that begin alike or with zeros are told apart', () => {
  const set = new DigestSet();
  const digestOfWords = (first: number, second: number): Buffer => {
    const digest = Buffer.alloc(32);
    digest.writeUInt32BE(first, 0);
    digest.writeUInt32BE(second, 4);
    return digest;
  };
  const digests = [digestOfWords(0, 0), digestOfWords(0, 2), digestOfWords(7, 0), digestOfWords(7, 9)];
  for (const fresh of [true, false]) expect(digests.map((digest) => set.add(digest))).toEqual(digests.map(() => fresh));
});
