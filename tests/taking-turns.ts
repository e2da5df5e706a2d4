/**
 * Test files that try variations of what others try at all. A run of everything plays every second of them, begun at a
 * place its seed tells, so that two runs play all; with TIDEMARK_TEST_ALL=1 one run does. Both halves cost about the same.
 */
const files = [
  'tests/end-to-end/changed-vm.test.ts',
  'tests/end-to-end/bad-guest.test.ts',
  'tests/crash/frozen-guest.test.ts',
  'tests/crash/everything-killed.test.ts',
  'workers/workers.test.ts',
  'cli/commands/repository.test.ts',
  'cli/commands/session-away.test.ts',
  'tests/end-to-end/control-plane.test.ts',
  'engines/hypervisors/qemu/worker-death.test.ts',
  'engines/hypervisors/qemu/tracking.test.ts',
  'engines/repository/kill.test.ts',
  'engines/mover/durability.test.ts',
  'engines/mover/refused-peers.test.ts',
  'engines/mover/lanes.test.ts',
  'engines/mover/silence.test.ts',
  'engines/restore/resume.test.ts',
  'engines/repository/restore-point/encrypted.test.ts',
  'engines/hypervisors/qemu/scratch.test.ts',
  'engines/hypervisors/qemu/leftovers.test.ts',
  'engines/hypervisors/qemu/surroundings.test.ts',
  'engines/repository/cuts.test.ts',
];
const VARIABLE = 'TIDEMARK_TEST_TURN';

/** Environment of a run of everything. `seed`: which turn it is. */
export const turnOf = (seed: number): Record<string, string> => ({ [VARIABLE]: String(seed % 2) });

/** Files that this run leaves to others: none, unless it is one of everything. */
export function leftToOthers(environment: NodeJS.ProcessEnv): string[] {
  const turn = environment[VARIABLE];
  if (turn === undefined || environment['TIDEMARK_TEST_ALL'] === '1') return [];
  return files.filter((_file, at) => String(at % 2) !== turn);
}
