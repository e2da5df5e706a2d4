import { describe, expect, it } from 'vitest';
import { cell, errorLines, findingLines, page, table } from './markdown.ts';
import { Waits } from './waits.ts';

const finding = (message: string) => ({ level: 'warning' as const, code: 'X', message });

describe('markdown', () => {
  it('keeps a cell in its table', () => {
    expect(cell('a|b\nc')).toBe('a\\|b c');
    expect(table(['x'], [['1\n2']])).toEqual(['| x |', '|---|', '| 1 2 |']);
  });

  it('shows at most 50 rows, and says how many more there are', () => {
    const rows = Array.from({ length: 60 }, (_, at) => [`${at}`]);
    expect(table(['x'], rows).slice(-3)).toEqual(['| 49 |', '', 'and 10 more']);
  });

  it('shows the newest findings', () => {
    const lines = findingLines(Array.from({ length: 60 }, (_, at) => finding(`${at}`)));
    expect(lines).toHaveLength(50);
    expect(lines.at(-1)).toBe('- warning `X`: 59');
  });

  it('leaves out parts that are empty', () => {
    const error = { code: 'BUG', message: 'm', hint: 'Report it.' } as const;
    expect(page(['# a'], [], errorLines(error))).toBe('# a\n\n**BUG**: m\n\nWhat to do: Report it.');
  });

  it('stays below the limit in bytes, cut after a whole line', () => {
    const wide = Array.from({ length: 50 }, () => ['ü'.repeat(400), '€'.repeat(400)]);
    const text = page(['# head'], table(['a', 'b'], wide));
    expect(Buffer.byteLength(text)).toBeLessThan(20_000);
    const lines = text.split('\n');
    expect(lines[0]).toBe('# head');
    for (const line of lines.filter((each) => each.startsWith('|'))) expect(line).toMatch(/\|$/);
    expect(lines.at(-1)).toMatch(/^\(cut/);
  });
});

describe('waits', () => {
  it('tells what is new, each text once, two at most', () => {
    let changes = 0;
    const waits = new Waits(() => (changes += 1));
    expect(waits.text).toBeNull();
    for (const disk of ['d0', 'd1']) waits.tell(disk, 'waits for proxy p1');
    waits.tell('d1', 'waits for proxy p1');
    expect([waits.text, changes]).toEqual(['waits for proxy p1', 2]);
    for (const machine of ['a', 'b', 'c']) waits.tell(machine, `waits for ${machine}`);
    expect(waits.text).toBe('waits for proxy p1; waits for a; 2 more');
    for (const who of ['d0', 'd1', 'a', 'b', 'c', 'd0']) waits.tell(who, null);
    expect([waits.text, changes]).toEqual([null, 10]);
  });
});
