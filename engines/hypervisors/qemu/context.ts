/** What the parts of the provider share: the host's configuration, its state on disk, and the names of what is made. */
import { join } from 'node:path';
import type { HostConfig, QemuVmConfig } from '../../../schema/domain/configuration.ts';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { Artifact, VmRef } from '../../../schema/domain/hypervisor.ts';
import {
  artifactName,
  type ArtifactKind,
  parseArtifactName,
  type RunKey,
  type SiteId,
  type VmId,
} from '../../../schema/domain/ids.ts';
import type { Monitor, Seams } from '../../../schema/domain/seams.ts';
import type { ArtifactLedger } from '../ledger.ts';
import type { QmpAction } from './qmp-shapes.ts';
import type { RunDisk, RunState, RunStates } from './run-states.ts';
import { scratchFile } from './scratch.ts';

export type QemuHost = Extract<HostConfig, { provider: 'qemu' }>;

export type Context = {
  host: QemuHost;
  site: SiteId;
  stateFolder: string;
  monitorOf: (vm: VmId) => Monitor;
  seams: Seams;
  states: RunStates;
  ledger: () => Promise<ArtifactLedger>;
  extraActions: () => Promise<QmpAction[]>;
};

export const nameOf = ({ site }: Context, run: RunKey, kind: ArtifactKind, index = 0): string =>
  artifactName(site, run, kind, index);

/** QEMU must be able to make files in the scratch folder, so the socket lies there, too. */
export const serverSocketOf = (context: Context, run: RunKey): string =>
  join(context.host.scratch.folder, `${nameOf(context, run, 'nbd')}.sock`);

export const daemonFolderOf = (context: Context, run: RunKey): string =>
  join(context.stateFolder, 'runs', nameOf(context, run, 'qsd'));

/** For names on the platform. */
export const isOfRun =
  ({ site }: Context, run: RunKey, kinds: readonly string[]) =>
  (name: string): boolean => {
    const parsed = parseArtifactName(name);
    return parsed?.site === site && parsed.run === run && kinds.includes(parsed.kind);
  };

export const refOf = ({ host }: Context, config: QemuVmConfig): VmRef => ({
  vmId: config.vmId,
  hostId: host.hostId,
});

/** VM_NOT_FOUND. */
export function configOf({ host: { hostId, vms } }: Context, { vmId }: VmRef): QemuVmConfig {
  const config = vms.find((one) => one.vmId === vmId);
  if (config) return config;
  throw new TidemarkError('VM_NOT_FOUND', `host ${hostId} has no VM ${vmId}`, { hostId, vmId });
}

/** Name of a disk's node in the process that holds the checkpoint. */
export const holderNode = ({ heldBy }: RunState, disk: RunDisk): string =>
  heldBy === 'vm' ? disk.node : `disk${disk.index}`;

/** Everything that a run of this plan makes. */
export function artifactsOf(context: Context, state: RunState): Artifact[] {
  const { site, host } = context;
  const { run, vm, disks, heldBy } = state;
  const make = (kind: Artifact['kind'], short: ArtifactKind, what: string, disk?: RunDisk): Artifact => ({
    kind,
    site,
    run,
    vm,
    what,
    ...(disk ? { diskKey: disk.facts.diskKey } : {}),
    platformName: nameOf(context, run, short, disk?.index ?? 0),
  });
  const whole =
    heldBy === 'vm'
      ? make('temporary', 'nbd', `NBD server at ${serverSocketOf(context, run)}`)
      : make('temporary', 'qsd', `qemu-storage-daemon in ${daemonFolderOf(context, run)}`);
  const perDisk = disks.flatMap((disk) => {
    const at = `of disk ${disk.facts.diskKey}`;
    const scratch = scratchFile(host.scratch, nameOf(context, run, 'flc', disk.index));
    const held = [
      make('temporary', 'flc', `scratch node and file ${scratch} ${at}`, disk),
      make('temporary', 'job', `backup job ${at}`, disk),
    ];
    return [
      ...(disk.bitmap === null ? [] : [make('reference-point', 'bm', `dirty bitmap ${at}`, disk)]),
      ...(heldBy === 'vm' ? held : []),
      make('temporary', 'exp', `NBD export ${at}`, disk),
    ];
  });
  return [whole, ...perDisk];
}
