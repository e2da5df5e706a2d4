/** What is wrong with a site.yaml, each with its place: gathered first, then told all at once. */
import { isAlias, isMap, isNode, isScalar, isSeq, visit, type Document, type LineCounter, type Node } from 'yaml';
import { TidemarkError } from '../../schema/domain/errors.ts';

export type ValuePath = readonly (string | number)[];
/**
 * `key`: the problem is this key of the mapping at `path`. `offset`: its place in the text, where known.
 * `say` is called for those that are shown only.
 */
export type Finding = { path: ValuePath; key?: string; offset?: number; say: () => string };
/** Line and column count from 1. */
export type Problem = { line: number; column: number; path: string; message: string };

const MAX_PROBLEMS_SHOWN = 20;
/** Finding a place takes time; of a hopeless file, the places of the first are enough. */
const MAX_PLACED = 1000;

export function pathText(path: ValuePath): string {
  const text = path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${part}`)).join('');
  return text.startsWith('.') ? text.slice(1) : text;
}

/** "the text \"a\"", "nothing", "a list": for people, never long. */
export function describeValue(value: unknown): string {
  if (value === undefined || value === null) return 'nothing';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object') return 'a mapping';
  const shown = typeof value === 'string' ? JSON.stringify(value) : `the ${typeof value} ${JSON.stringify(value)}`;
  return shown.length <= 80 ? shown : `${shown.slice(0, 77)}...`;
}

type Found = { node: Node | null; keyOffset: number | null };

/** The innermost node on the way to `path`: of something missing, the mapping it is missing in. */
function nodeAt(document: Document, path: ValuePath): Found {
  let found: Found = { node: document.contents, keyOffset: null };
  for (const part of path) {
    const here = isAlias(found.node) ? found.node.resolve(document) : found.node;
    if (isSeq(here) && typeof part === 'number' && isNode(here.items[part])) {
      found = { node: here.items[part], keyOffset: null };
      continue;
    }
    const pair = isMap(here) ? here.items.find(({ key }) => isScalar(key) && String(key.value) === part) : undefined;
    if (!pair) break;
    const keyOffset = isScalar(pair.key) ? (pair.key.range?.[0] ?? null) : null;
    found = { node: isNode(pair.value) ? pair.value : found.node, keyOffset };
  }
  return found;
}

function offsetOf(document: Document, { path, key, offset }: Finding): number {
  if (offset !== undefined) return offset;
  const { node, keyOffset } = nodeAt(document, key === undefined ? path : [...path, key]);
  const wanted = key === undefined ? (node?.range?.[0] ?? keyOffset) : keyOffset;
  return wanted ?? node?.range?.[0] ?? 0;
}

/** Keys that stand twice in one mapping, in linear time (the YAML library's own check is quadratic). */
export function repeatedKeys(document: Document): Finding[] {
  const repeated: Finding[] = [];
  visit(document, {
    Map(_key, map) {
      const seen = new Set<string>();
      for (const { key } of map.items) {
        if (!isScalar(key)) continue;
        const name = String(key.value);
        const say = (): string => `the key ${describeValue(name)} stands twice in one mapping`;
        if (seen.has(name)) repeated.push({ path: [], offset: key.range?.[0] ?? 0, say });
        seen.add(name);
      }
    },
  });
  return repeated;
}

/** The first alias beyond `limit`, or that names no anchor; null when there is none. */
export function badAlias(document: Document, limit: number): { message: string; offset: number } | null {
  let count = 0;
  let bad: { message: string; offset: number } | null = null;
  visit(document, {
    Alias(_key, alias) {
      count += 1;
      const offset = alias.range?.[0] ?? 0;
      if (count > limit) bad = { message: `expected at most ${limit} aliases`, offset };
      else if (!alias.resolve(document))
        bad = { message: `there is no anchor &${alias.source} before this alias`, offset };
      return bad === null ? undefined : visit.BREAK;
    },
  });
  return bad;
}

/** In the order of the file; more than are shown are only counted. */
export function placeFindings(document: Document, lines: LineCounter, findings: readonly Finding[]): Problem[] {
  return findings
    .slice(0, MAX_PLACED)
    .map((finding) => ({ finding, offset: offsetOf(document, finding) }))
    .sort((a, b) => a.offset - b.offset)
    .slice(0, MAX_PROBLEMS_SHOWN)
    .map(({ finding, offset }) => {
      const { line, col } = lines.linePos(offset);
      const path = pathText(finding.key === undefined ? finding.path : [...finding.path, finding.key]);
      return { line, column: col, path, message: finding.say() };
    });
}

/** BAD_CONFIG; details {file, problems, problemCount}. */
export function badSite(fileName: string, problems: readonly Problem[], problemCount = problems.length): TidemarkError {
  const lines = problems.map(({ line, column, path, message }) => {
    const where = `${fileName}:${line}:${column}`;
    return path === '' ? `${where}: ${message}` : `${where}: ${path}: ${message}`;
  });
  const more = problemCount > problems.length ? [`and ${problemCount - problems.length} more`] : [];
  const text = [...lines, ...more];
  const message = text.length === 1 ? text[0]! : `${problemCount} problems in ${fileName}\n  ${text.join('\n  ')}`;
  return new TidemarkError('BAD_CONFIG', message, { file: fileName, problems: [...problems], problemCount });
}
