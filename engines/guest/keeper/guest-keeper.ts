/**
 * The guest keeper of one machine: monitors, guest agents, freezes and rescues behind one socket. It knows nothing of
 * Temporal and lives on when every worker is dead.
 */
import { messageOf } from '../../../schema/domain/errors.ts';
import type { VmId } from '../../../schema/domain/ids.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import { createExecLedger } from './exec-ledger.ts';
import { FreezeKeeper } from './freeze-keeper.ts';
import { createKeptVms } from './kept-vms.ts';
import type { OpenMonitor } from './monitor-link.ts';
import { openQmpMonitor } from './open-monitor.ts';
import type { KeptVm } from './protocol.ts';
import { createRescuer } from './rescuer.ts';
import { listen, type Handle } from './server.ts';
import { createVerbs } from './verbs.ts';

export type GuestKeeperOptions = {
  socket: string;
  /** Ledgers: frozen.json, scripts.json, rescues.json. */
  stateFolder: string;
  /** Asked at the start, on `reload`, and when a VM is named that is not known. */
  loadVms: () => Promise<KeptVm[]>;
  seams: Seams;
  openMonitor?: OpenMonitor;
};
export type GuestKeeper = {
  reload(): Promise<void>;
  /** Thaws all guests, for at most `waitMs`; gives the ids of those that did not answer. */
  stop(waitMs?: number): Promise<VmId[]>;
};

/** Listens when it resolves; guests found frozen in the ledger are being thawed by then. PLATFORM_BUSY: another one lives. */
export async function startGuestKeeper(options: GuestKeeperOptions): Promise<GuestKeeper> {
  const { socket, stateFolder, loadVms, seams, openMonitor = openQmpMonitor(options.seams) } = options;
  const rescuer = createRescuer(stateFolder, seams);
  const scripts = createExecLedger(stateFolder, seams);
  const vms = createKeptVms(loadVms, openMonitor, rescuer, seams);
  const freezes = new FreezeKeeper({ stateFolder, seams, agentOf: (vm) => vms.agentOf(vm) });
  const handle = createVerbs({ vms, freezes, rescuer, scripts });

  // The socket first: it says that no other keeper lives. Callers wait until the ledgers are read.
  let begin: () => void = () => undefined;
  const ready = new Promise<void>((resolve) => (begin = resolve));
  const whenReady: Handle = (...asked) => ready.then(() => handle(...asked));
  const server = await listen(socket, whenReady, (owner) => freezes.lost(owner), seams.log);
  await Promise.all([rescuer.start(), scripts.start()]);
  await vms
    .reload()
    .catch((error: unknown) => seams.log.error('cannot load the configuration', { error: messageOf(error) }));
  await freezes.start(vms.all().flatMap(({ vmId, agent }) => (agent === undefined ? [] : [{ vmId, agent }])));
  begin();

  return {
    reload: () => vms.reload(),
    stop: async (waitMs = 20_000) => {
      const silent = await freezes.stop(waitMs);
      await server.close();
      vms.close();
      return silent;
    },
  };
}
