/** What a worker process is told by its environment, and what its machine runs. */
import { readFile } from 'node:fs/promises';
import { stackLayout, type StackLayout } from '../../engines/stack/layout.ts';
import { describeSecurity, securityLayout } from '../../engines/security/security-layout.ts';
import type { MachineConfig, TemporalTls } from '../../schema/domain/configuration.ts';
import type { LaneSecurity } from '../lanes/secure-ends.ts';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';

/** `tls`: absent when the server asks for none. */
export type TemporalAddress = { address: string; namespace: string; tls?: TemporalTls | undefined };
const DEFAULT_NAMESPACE = 'tidemark';

/** BAD_CONFIG when the variable is not set. */
export function requiredVariable(name: string, meaning: string): string {
  const value = process.env[name];
  if (value) return value;
  throw new TidemarkError('BAD_CONFIG', `${name} does not name ${meaning}`, { variable: name });
}

export const stateLayout = (): StackLayout => stackLayout(requiredVariable('TIDEMARK_STATE', 'the state folder'));

/**
 * From the environment, which the embedded stack and the production form set, else from the machine's configuration.
 * `TIDEMARK_TEMPORAL_TLS` is `true`, or JSON like `temporal.tls` of site.yaml. BAD_CONFIG.
 */
export async function temporalAddress(): Promise<TemporalAddress> {
  const configured = process.env['TIDEMARK_TEMPORAL_ADDRESS'] ? null : (await loadMachine(stateLayout()))?.temporal;
  if (configured) return { namespace: DEFAULT_NAMESPACE, tls: undefined, ...configured };
  return {
    address: requiredVariable('TIDEMARK_TEMPORAL_ADDRESS', 'where Temporal listens, nor does `temporal` in site.yaml'),
    namespace: requiredVariable('TIDEMARK_TEMPORAL_NAMESPACE', 'the namespace of the site'),
    tls: temporalTlsIn(process.env),
  };
}

export function temporalTlsIn(environment: NodeJS.ProcessEnv): TemporalTls | undefined {
  const text = environment['TIDEMARK_TEMPORAL_TLS'];
  if (!text || text === 'false') return undefined;
  try {
    return JSON.parse(text) as TemporalTls;
  } catch (error) {
    throw new TidemarkError('BAD_CONFIG', `TIDEMARK_TEMPORAL_TLS is no JSON: ${messageOf(error)}`, {}, error);
  }
}

/** Who this machine is, and where its certificates lie: plain data, of files that need not be there yet. */
export function laneSecurityOf(machine: MachineConfig, layout: StackLayout): LaneSecurity {
  const { machineId, site, security } = machine;
  return { machineId, security: describeSecurity(site, securityLayout(layout.configFolder), security) };
}

/** Null when nothing was applied yet. BAD_CONFIG: the file cannot be read, or is not what we write. */
export async function loadMachine({ machineFile }: StackLayout): Promise<MachineConfig | null> {
  const text = await readFile(machineFile, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw new TidemarkError('BAD_CONFIG', `cannot read ${machineFile}: ${error.message}`, { machineFile }, error);
  });
  if (text === null) return null;
  try {
    const machine = JSON.parse(text) as MachineConfig;
    for (const list of [machine.hosts, machine.proxies, machine.repositories])
      if (!Array.isArray(list)) throw new TypeError('it lacks a list of hosts, proxies or repositories');
    return machine;
  } catch (error) {
    throw new TidemarkError('BAD_CONFIG', `${machineFile} is damaged: ${messageOf(error)}`, { machineFile }, error);
  }
}
