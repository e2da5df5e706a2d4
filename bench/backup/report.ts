/** What was measured as a page in Markdown and as a picture. */
import { timesAsFast, MIB, type Bar } from '../repository/report.ts';
import type { Taken } from '../repository/measure.ts';

/** `bytes`: of the disk. */
export type Part = { title: string; taken: Map<string, Taken>; bytes: number; bars: Bar[] };
const OURS = 'tidemark';

export function pageOf(parts: readonly Part[], size: string): string {
  const tables = parts.map(({ title, taken, bytes }) => {
    const rows = [...taken].map(([name, { seconds, cpuSeconds }]) => [
      name,
      seconds.toFixed(2),
      (bytes / MIB / seconds).toFixed(0),
      ((cpuSeconds * 1024 * MIB) / bytes).toFixed(2),
      name.startsWith(OURS) ? '' : timesAsFast(taken, OURS, name).toFixed(2),
    ]);
    const head = [
      '',
      'seconds',
      'MiB of the disk per second',
      'CPU seconds per GiB of the disk',
      'Tidemark is so many times as fast',
    ];
    return `## ${title[0]}${title.slice(1).toLowerCase()}\n\n${markdownOf(head, rows)}`;
  });
  const bars = parts.flatMap((part) => part.bars);
  const judged = bars.map(({ what, is, must }) => [
    what,
    is.toFixed(2),
    must.toFixed(2),
    is >= must ? 'met' : '**not met**',
  ]);
  return `# Benchmark\n\nMade by \`npm run bench\`: ${size}. How each tool is set is in [bench/README.md](../bench/README.md).\n\n${tables.join('\n\n')}\n\n## Bars\n\n${markdownOf(['', 'is', 'must be at least', ''], judged)}\n`;
}

const markdownOf = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map((_, i) => (i === 0 ? '---' : '---:')), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');

const [WIDTH, LABEL, ROW, TITLE] = [760, 190, 22, 34];

/** Bars of seconds, per part on a scale of its own. */
export function pictureOf(parts: readonly Part[]): string {
  let y = 10;
  const pieces: string[] = [];
  for (const { title, taken } of parts) {
    pieces.push(`<text x="10" y="${y + 20}" class="t">${title.toLowerCase()}, seconds</text>`);
    y += TITLE;
    const most = Math.max(...[...taken.values()].map(({ seconds }) => seconds));
    for (const [name, { seconds }] of taken) {
      const length = Math.max(1, ((WIDTH - LABEL - 80) * seconds) / most);
      const kind = name.startsWith(OURS) ? 'us' : 'them';
      pieces.push(
        `<text x="${LABEL - 8}" y="${y + 15}" text-anchor="end">${name}</text>` +
          `<rect x="${LABEL}" y="${y + 3}" width="${length.toFixed(1)}" height="${ROW - 6}" class="${kind}"/>` +
          `<text x="${(LABEL + length + 6).toFixed(1)}" y="${y + 15}">${seconds.toFixed(2)}</text>`,
      );
      y += ROW;
    }
    y += 8;
  }
  const style = 'text{font:13px sans-serif;fill:#333}.t{font-weight:bold}.us{fill:#0a7d5a}.them{fill:#9aa7b0}';
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" role="img"><style>${style}</style><rect width="100%" height="100%" fill="#fff"/>${pieces.join('')}</svg>\n`;
}
