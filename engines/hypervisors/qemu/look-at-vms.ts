/** Looks at all VMs of a host: those that do not answer hold up neither the others nor whoever waits for the list. */
import type { QemuVmConfig } from '../../../schema/domain/configuration.ts';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { Clock } from '../../../schema/domain/seams.ts';
import type { Context } from './context.ts';

const AT_ONCE = 8;
const VM_TIMEOUT_MS = 10_000;
/** Less than the activities that ask for a list may take. */
const ALL_TIMEOUT_MS = 45_000;

/** In the order of the configuration. `unseen`: what stands for a VM that could not be looked at, or not in time. */
export async function lookAtVms<T>(
  { host, seams: { clock } }: Context,
  look: (config: QemuVmConfig) => Promise<T>,
  unseen: (config: QemuVmConfig, error: unknown) => T,
): Promise<T[]> {
  const end = clock.monotonic() + ALL_TIMEOUT_MS;
  const waiting = host.vms.entries();
  const found: T[] = [];
  const lookAtSome = async (): Promise<void> => {
    for (const [index, config] of waiting) {
      const limitMs = Math.min(VM_TIMEOUT_MS, end - clock.monotonic());
      found[index] = await within(clock, limitMs, () => look(config)).catch((error: unknown) => unseen(config, error));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lookAtSome));
  return found;
}

/** PLATFORM_BUSY: `work` goes on, and nobody waits for it any more. Without any time left it is not begun. */
async function within<T>(clock: Clock, limitMs: number, work: () => Promise<T>): Promise<T> {
  const over = (): never => {
    throw new TidemarkError('PLATFORM_BUSY', 'no answer in the time there is for the VMs of a host');
  };
  if (limitMs <= 0) over();
  const done = new AbortController();
  try {
    return await Promise.race([work(), clock.sleep(limitMs, done.signal).then(over)]);
  } finally {
    done.abort();
  }
}
