/**
 * A full scratch disk stops the guest, not the backup. So: take the exports of the backup away, whose readers would see
 * the disks as they are by then, cancel our backup jobs, let the guest go on (invariant 7).
 * Jobs of others, and guests that stopped for want of space in their own storage, are left alone.
 */
import { errorCodeOf, messageOf } from '../../../schema/domain/errors.ts';
import { parseArtifactName, type RunKey } from '../../../schema/domain/ids.ts';
import type { Clock, MonitorEvent, Seams } from '../../../schema/domain/seams.ts';
import { durableFile } from './durable-file.ts';
import type { KeptVm, Rescue } from './protocol.ts';

export type Execute = (command: string, args?: Record<string, unknown>) => Promise<unknown>;
export type Rescuer = {
  start(): Promise<void>;
  /** Give it each event of a VM's monitor. Resolves when what followed from it is done; null when nothing did. */
  onEvent(vm: KeptVm, event: MonitorEvent, execute: Execute): Promise<Rescue | null>;
  /** Call when a monitor is connected: the guest may have stopped while nobody listened. */
  onConnected(vm: KeptVm, execute: Execute): Promise<Rescue | null>;
  rescues(vmId: string): Rescue[];
};

const maxRescues = 100;
/** `cont` is said again to a guest that stops once more this soon: writes of before were still under way. */
const againMs = 30_000;
const jobGoneWaitMs = 10_000;
const pollMs = 25;

export function createRescuer(stateFolder: string, seams: Seams): Rescuer {
  const { clock, log } = seams;
  const file = durableFile(`${stateFolder}/rescues.json`);
  const last = new Map<string, Promise<unknown>>();
  const rescuedAtMs = new Map<string, number>();
  let rescues: Rescue[] = [];

  const rescue = async (vm: KeptVm, execute: Execute): Promise<Rescue | null> => {
    const jobs = await ourJobs(vm, execute);
    const again = clock.monotonic() - (rescuedAtMs.get(vm.vmId) ?? -Infinity) < againMs;
    if (jobs.length === 0 && !again) {
      log.warn('guest is out of space, but not for a backup of ours', { vm: vm.vmId, site: vm.site });
      return null;
    }
    if (jobs.length > 0) rescuedAtMs.set(vm.vmId, clock.monotonic());
    await endExports(vm, new Set(jobs.map(({ run }) => run)), execute).catch((error: unknown) =>
      log.warn('cannot end the exports of a backup', { vm: vm.vmId, error: messageOf(error) }),
    );
    for (const job of jobs) {
      await execute('job-cancel', { id: job.id }).catch((error: unknown) =>
        log.warn('cannot cancel a backup job', { vm: vm.vmId, job: job.id, error: messageOf(error) }),
      );
    }
    await untilGone(vm, execute, clock);
    await execute('cont');
    return jobs.length > 0 ? await record(vm, jobs) : null;
  };

  const record = async (vm: KeptVm, jobs: { id: string; run: RunKey }[]): Promise<Rescue> => {
    const at = new Date(clock.now()).toISOString();
    const rescue: Rescue = { vmId: vm.vmId, run: jobs[0]?.run ?? null, jobs: jobs.map((job) => job.id), at };
    rescues = [...rescues, rescue].slice(-maxRescues);
    log.error('scratch space is full: backup cancelled, guest let go on', { ...rescue });
    await file
      .write(() => ({ version: 1, rescues }))
      .catch((error: unknown) => log.error('cannot record a rescue', { ...rescue, error: messageOf(error) }));
    return rescue;
  };

  /** One after another per VM: events come in bundles. */
  const inTurn = (vm: KeptVm, act: () => Promise<Rescue | null>): Promise<Rescue | null> => {
    const turn = (last.get(vm.vmId) ?? Promise.resolve()).then(act).catch((error: unknown) => {
      const fields = { vm: vm.vmId, error: messageOf(error) };
      // A monitor that went away is looked at again when it is back.
      if (errorCodeOf(error) === 'UNREACHABLE') log.info('monitor was lost while the guest was looked at', fields);
      else log.error('GUEST MAY BE STOPPED: rescue from full scratch space failed', fields);
      return null;
    });
    last.set(vm.vmId, turn);
    return turn;
  };

  const rescueIfStopped = (vm: KeptVm, execute: Execute): Promise<Rescue | null> =>
    inTurn(vm, async () => {
      const { status } = (await execute('query-status')) as { status?: string };
      return status === 'io-error' ? await rescue(vm, execute) : null;
    });

  return {
    start: async () => {
      const content = await file.read().catch(() => undefined);
      const kept = (content as { rescues?: Rescue[] } | undefined)?.rescues;
      rescues = Array.isArray(kept) ? kept : [];
    },
    onEvent: async (vm, event, execute) => {
      if (event.event === 'STOP') return await rescueIfStopped(vm, execute);
      const noSpace = event.event === 'BLOCK_IO_ERROR' && event.data['nospace'] === true;
      return noSpace ? await inTurn(vm, () => rescueWithJobs(vm, execute)) : null;
    },
    onConnected: rescueIfStopped,
    rescues: (vmId) => rescues.filter((rescue) => rescue.vmId === vmId),
  };

  /** The event comes before the guest stops, several times over: after the first nothing is left to cancel. */
  async function rescueWithJobs(vm: KeptVm, execute: Execute): Promise<Rescue | null> {
    return (await ourJobs(vm, execute)).length > 0 ? await rescue(vm, execute) : null;
  }
}

/** A job still there when the time is over may hold the guest's write; the guest is let go on all the same. */
async function untilGone(vm: KeptVm, execute: Execute, clock: Clock): Promise<void> {
  const end = clock.monotonic() + jobGoneWaitMs;
  while ((await ourJobs(vm, execute)).length > 0 && clock.monotonic() < end) await clock.sleep(pollMs);
}

/** Hard: connections end at once, too. */
async function endExports(vm: KeptVm, runs: ReadonlySet<RunKey>, execute: Execute): Promise<void> {
  for (const { id } of (await execute('query-block-exports')) as { id: string }[]) {
    const name = parseArtifactName(id);
    if (name?.site === vm.site && runs.has(name.run)) await execute('block-export-del', { id, mode: 'hard' });
  }
}

async function ourJobs(vm: KeptVm, execute: Execute): Promise<{ id: string; run: RunKey }[]> {
  const jobs = (await execute('query-jobs')) as { id: string; type: string }[];
  return jobs.flatMap(({ id, type }) => {
    const name = type === 'backup' ? parseArtifactName(id) : null;
    return name?.site === vm.site ? [{ id, run: name.run }] : [];
  });
}
