import { describe, expect, it } from 'vitest';
import { refusal } from '../../tests/fixtures/site.ts';

describe('hostile text ends in an error, soon', () => {
  const bomb = `${['a', 'b', 'c', 'd', 'e', 'f']
    .map(
      (name, i) =>
        `${name}: &${name} [${Array(9)
          .fill(i === 0 ? 'x' : `*${'abcdef'[i - 1]}`)
          .join(',')}]`,
    )
    .join('\n')}\n`;
  it.each([
    ['aliases of aliases', bomb, /aliases ask for too much/],
    [
      'many aliases',
      `a: &a 1\nb: [${Array(50_000).fill('*a').join(', ')}]`,
      /^site\.yaml:2:\d+: expected at most 100 aliases$/,
    ],
    ['too deep', '['.repeat(100_000), /nested too deeply/],
    ['too long', `# ${'x'.repeat(1024 * 1024)}`, /expected at most 1048576 bytes/],
    ['a hundred thousand keys', Array.from({ length: 100_000 }, (_, i) => `k${i}: 1`).join('\n'), /100001 problems/],
    ['no YAML', 'site: "lab', /^site\.yaml:1:11: .*quote/],
    ['another document', 'site: a\n---\nsite: b\n', /^site\.yaml:2:1: .*multiple documents/],
    [
      'an anchor that is not there',
      'site: *nothing\n',
      /^site\.yaml:1:7: there is no anchor &nothing before this alias$/,
    ],
    ['a tag of somebody', 'site: !!js/function x\n', /^site\.yaml:1:7: .*tag/],
    [
      'nothing at all',
      '',
      /^site\.yaml:1:1: expected a mapping: site, hosts, proxies, repositories, jobs, found nothing$/,
    ],
    ['a list', '- site', /^site\.yaml:1:1: expected a mapping.*found a list of 1$/],
    ['a key that is a list', '{ [a, b]: 1, site: lab }', /this key is not known here/],
    ['a prototype', 'site: lab\n__proto__: { jobs: [] }\nconstructor: 1\n', /constructor: this key is not known here/],
  ])('%s', (_what, text, said) => {
    expect(refusal(text).message).toMatch(said);
  });
});
