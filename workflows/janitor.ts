/**
 * Each five minutes: what sessions have left behind, because they were terminated, or could not take it back in time
 * (invariant 6). Open restore points, checkpoints and their exports go when the workflow whose they were is over, seen
 * twice, a minute apart: by then its activities have learnt of it and write no more. A reference point goes only when, in
 * addition, every repository of the site says that nothing names it. Who does not answer keeps all.
 */
import { setCurrentDetails, sleep, workflowInfo } from '@temporalio/workflow';
import type { HostId, RepositoryId, RunKey } from '../schema/domain/ids.ts';
import type {
  ArtifactRuns,
  JanitorInput,
  JanitorResult,
  OpenRestorePointView,
} from '../schema/domain/maintenance-sessions.ts';
import {
  controlQueue,
  hostCtlQueue,
  hostUndoQueue,
  machineOfQueue,
  repositoryCtlQueue,
} from '../schema/domain/queues.ts';
import { viewOf } from './failures.ts';
import { page } from './markdown.ts';
import { say } from './say.ts';

const SEEN_APART_MS = 60_000;

type Seen = { open: Map<RepositoryId, OpenRestorePointView[]>; hosts: Map<HostId, ArtifactRuns> };

class Round {
  readonly removed: { run: RunKey; message: string }[] = [];
  readonly left: string[] = [];
  readonly repositories: readonly RepositoryId[];

  constructor(repositories: readonly RepositoryId[]) {
    this.repositories = repositories;
  }

  remove(run: RunKey, message: string): void {
    this.removed.push({ run, message });
    this.show();
  }

  leave(message: string): void {
    this.left.push(message);
    this.show();
  }

  show(): void {
    const lines = (texts: readonly string[]): string[] => texts.map((text) => `- ${text}`);
    const removed = lines(this.removed.map(({ message }) => message));
    setCurrentDetails(
      page(
        [removed.length === 0 ? '### Nothing was taken away' : '### Taken away'],
        removed,
        this.left.length === 0 ? [] : ['### Left', ...lines(this.left)],
      ),
    );
  }

  get result(): JanitorResult {
    return { removed: this.removed.map(({ message }) => message), left: this.left };
  }
}

export async function janitor(_input: JanitorInput): Promise<JanitorResult> {
  const { site, hosts, repositories } = await say('listSiteParts', { queue: controlQueue })();
  const round = new Round(repositories);
  round.show();
  if (site === null) return round.result;
  const seen = await lookAround(round, hosts);
  const suspects = await suspectsOf(round, seen);
  if (suspects.length === 0) return round.result;
  await sleep(SEEN_APART_MS);
  const { closed, unknown } = await say('judgeRuns', { queue: controlQueue, summary: 'once more' })({
    runs: suspects,
    witness: workflowInfo().workflowId,
  });
  leaveUnknown(round, unknown);
  if (closed.length === 0) return round.result;
  await abortOpen(round, seen, new Set(closed));
  await removeArtifacts(round, seen, closed);
  if (round.removed.length > 0) await say('recordJanitor', { queue: controlQueue })({ removed: round.removed });
  return round.result;
}

/** `ask` of each, side by side; one that does not answer is left, with what it has. */
async function askAll<Id, Answer>(
  round: Round,
  ids: readonly Id[],
  of: { queueOf: (id: Id) => string; ask: (queue: string) => Promise<Answer> },
): Promise<Map<Id, Answer>> {
  const answers = new Map<Id, Answer>();
  await Promise.all(
    ids.map(async (id) => {
      const queue = of.queueOf(id);
      try {
        answers.set(id, await of.ask(queue));
      } catch (error) {
        round.leave(`${machineOfQueue(queue)} is left alone: ${viewOf(error).message}`);
      }
    }),
  );
  return answers;
}

async function lookAround(round: Round, hosts: readonly HostId[]): Promise<Seen> {
  const [open, artifacts] = await Promise.all([
    askAll(round, round.repositories, {
      queueOf: repositoryCtlQueue,
      ask: (queue) => say('listOpenRestorePoints', { queue, summary: machineOfQueue(queue) })(),
    }),
    askAll(round, hosts, {
      queueOf: hostCtlQueue,
      ask: (queue) => say('listArtifactRuns', { queue, summary: machineOfQueue(queue) })(),
    }),
  ]);
  return { open, hosts: artifacts };
}

const unique = (runs: readonly RunKey[]): RunKey[] => [...new Set(runs)];
const openRuns = ({ open }: Seen): RunKey[] => [...open.values()].flat().map(({ run }) => run);
const referencePoints = ({ hosts }: Seen): RunKey[] => [...hosts.values()].flatMap((runs) => runs.referencePoints);

/** Runs of which something is there, and whose workflow is over as far as is seen now. */
async function suspectsOf(round: Round, seen: Seen): Promise<RunKey[]> {
  const open = new Set(openRuns(seen));
  const unnamed = await unnamedOf(
    round,
    unique(referencePoints(seen)).filter((run) => !open.has(run)),
  );
  const temporary = [...seen.hosts.values()].flatMap((runs) => runs.temporary);
  const runs = unique([...open, ...temporary, ...unnamed]);
  if (runs.length === 0) return [];
  const { closed, unknown } = await say('judgeRuns', { queue: controlQueue })({ runs, witness: null });
  leaveUnknown(round, unknown);
  return closed;
}

function leaveUnknown(round: Round, unknown: readonly RunKey[]): void {
  for (const run of unknown) round.leave(`what there is of run ${run} is left: nobody says whether it goes on`);
}

/** Those that no repository names; none when one of them does not say. */
async function unnamedOf(round: Round, runs: RunKey[]): Promise<RunKey[]> {
  if (runs.length === 0) return [];
  const named = await askAll(round, round.repositories, {
    queueOf: repositoryCtlQueue,
    ask: (queue) => say('namedRuns', { queue, summary: machineOfQueue(queue) })({ runs }),
  });
  if (named.size < round.repositories.length) return [];
  const all = new Set([...named.values()].flat());
  return runs.filter((run) => !all.has(run));
}

/** The repository decides, durably: what it has aborted nobody writes any more. */
async function abortOpen(round: Round, { open }: Seen, closed: ReadonlySet<RunKey>): Promise<void> {
  for (const [repository, points] of open)
    for (const { restorePointId, run } of points.filter((point) => closed.has(point.run))) {
      const what = `open restore point ${restorePointId} of repository ${repository}`;
      try {
        const queue = repositoryCtlQueue(repository);
        const { outcome } = await say('abortRestorePoint', { queue, summary: what })({ restorePointId, run });
        if (outcome === 'aborted') round.remove(run, what);
        else round.leave(`${what} was sealed meanwhile`);
      } catch (error) {
        round.leave(`${what}: ${viewOf(error).message}`);
      }
    }
}

async function removeArtifacts(round: Round, seen: Seen, closed: readonly RunKey[]): Promise<void> {
  const over = new Set(closed);
  const candidates = unique(referencePoints(seen)).filter((run) => over.has(run));
  const unnamed = new Set(await unnamedOf(round, candidates));
  await Promise.all(
    [...seen.hosts].map(async ([host, runs]) => {
      const temporary = runs.temporary.filter((run) => over.has(run));
      const gone = runs.referencePoints.filter((run) => unnamed.has(run));
      if (temporary.length + gone.length > 0) await removeOn(round, host, { temporary, referencePoints: gone });
    }),
  );
}

async function removeOn(round: Round, host: HostId, runs: ArtifactRuns): Promise<void> {
  const queue = hostUndoQueue(host);
  try {
    const { removed, failed } = await say('removeArtifacts', { queue, summary: machineOfQueue(queue) })(runs);
    for (const { run, what } of removed) round.remove(run, `${what} (host ${host})`);
    for (const { what, why } of failed) round.leave(`${what} (host ${host}): ${why}`);
  } catch (error) {
    round.leave(`host ${host}: ${viewOf(error).message}`);
  }
}
