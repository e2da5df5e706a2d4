/** Retention is answered in parts, so that no answer is longer than a history bears. */
import type { LineagePolicy, LineageRetention } from '../schema/domain/maintenance-sessions.ts';

/** What is to be asked after this answer: the rest of the lineage it ended in, and those it did not come to. */
export function leftToRetain(asked: readonly LineagePolicy[], answers: readonly LineageRetention[]): LineagePolicy[] {
  const rest = asked.slice(answers.length);
  const [last, next] = [asked[answers.length - 1], answers.at(-1)?.next];
  return last && next ? [{ ...last, after: next }, ...rest] : rest;
}
