/** Programs of the guest's owner, run through the guest agent: once per run key and place, whatever is retried. */
import type { KeeperClient } from '../../engines/guest/keeper/client.ts';
import type { ExecResult } from '../../engines/guest/keeper/protocol.ts';
import type { GuestScript } from '../../schema/domain/configuration.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { VmRef } from '../../schema/domain/hypervisor.ts';
import type { RunKey } from '../../schema/domain/ids.ts';

export type ScriptPlace = 'pre-freeze' | 'post-thaw' | 'success';
type Of = { vm: VmRef; run: RunKey; place: ScriptPlace; script: GuestScript };

const TOLD_CHARACTERS = 300;

/** GUEST_SCRIPT_FAILED when it ends other than with 0; the agent's own errors otherwise. */
export async function runGuestScript(guests: Pick<KeeperClient, 'exec'>, of: Of): Promise<void> {
  const { vm, run, place, script } = of;
  const result = await guests.exec(vm, { key: `${run}.${place}`, ...script });
  if (result.exitCode === 0 && result.signal === null) return;
  const message = `${place} script ${script.path} in VM ${vm.vmId} ended with ${endOf(result)}${saidOf(result)}`;
  throw new TidemarkError('GUEST_SCRIPT_FAILED', message, { vmId: vm.vmId, place, exitCode: result.exitCode });
}

const endOf = ({ exitCode, signal }: ExecResult): string =>
  signal === null ? `exit code ${exitCode}` : `signal ${signal}`;

/** The end of what it said, where the reason usually is. */
function saidOf({ stderr, stdout }: ExecResult): string {
  const text = Buffer.from(stderr || stdout, 'base64')
    .toString('utf8')
    .trim();
  return text === '' ? '' : `: ${text.slice(-TOLD_CHARACTERS)}`;
}
