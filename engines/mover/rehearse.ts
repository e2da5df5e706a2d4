/** Connects and shakes hands with a target before anything touches a guest. */
import type { TargetEndpoint } from '../../schema/domain/hypervisor.ts';
import { diskKey, type RestorePointId, type RunKey } from '../../schema/domain/ids.ts';
import { openWire, versions } from './wire-session/open-wire.ts';
import type { ClientEnd } from './wire-session/secure-ends.ts';

export type TargetFacts = { protocolVersion: number; laneCount: number };

/** UNREACHABLE: nobody answers at the endpoint. RESTORE_POINT_*: the target does not know an open restore point of this run. */
export async function rehearse(of: {
  endpoint: TargetEndpoint;
  restorePointId: RestorePointId;
  run: RunKey;
  secure?: ClientEnd | undefined;
}): Promise<TargetFacts> {
  const none = { fence: 0, sizeBytes: 0, blockSize: 0, creditBytes: 0, diskKey: diskKey('') };
  const { restorePointId, run } = of;
  const { wire, welcome } = await openWire(
    of.endpoint,
    { type: 'hello', purpose: 'rehearsal', ...versions, restorePointId, run, ...none },
    { onMessage: () => undefined, onEnd: () => undefined, secure: of.secure },
  );
  wire.send({ type: 'bye' });
  wire.close();
  return { protocolVersion: welcome.version, laneCount: welcome.laneCount };
}
