/** Retention is answered in parts, so that no answer is longer than a history bears; what people must know is taken from them. */
import type { LineagePolicy, LineageRetention } from '../schema/domain/maintenance-sessions.ts';
import type { Finding } from '../schema/domain/states.ts';

/** What is to be asked after this answer: the rest of the lineage it ended in, and those it did not come to. */
export function leftToRetain(asked: readonly LineagePolicy[], answers: readonly LineageRetention[]): LineagePolicy[] {
  const rest = asked.slice(answers.length);
  const [last, next] = [asked[answers.length - 1], answers.at(-1)?.next];
  return last && next ? [{ ...last, after: next }, ...rest] : rest;
}

/** VMs named in one run: clocks that were wrong for a night may concern all of them. */
const MOST_NAMED = 20;

/** A warning for each lineage that retention leaves alone, after those `told` already; where they are many, that there are more. */
export function doubtsToTell(answers: readonly LineageRetention[], told: readonly Finding[]): Finding[] {
  const findings: Finding[] = [];
  for (const { vmName, doubt } of answers) {
    if (!doubt) continue;
    const { code } = doubt;
    const count = [...told, ...findings].filter((finding) => finding.code === code).length;
    if (count > MOST_NAMED) break;
    const message =
      count < MOST_NAMED
        ? `retention removes nothing of VM ${vmName}: ${doubt.message}; remove by hand what is dated so, or wait until then`
        : 'retention removes nothing of more VMs: `tidemark repository prune --dry-run` says of which, and why';
    findings.push({ level: 'warning', code, message });
  }
  return findings;
}
