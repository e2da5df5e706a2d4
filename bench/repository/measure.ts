/** Contenders in turn, several rounds, the median of each: what else the machine does hits all of them alike. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';

const ROUNDS = 3;
/** Of /proc, on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

export type Taken = { seconds: number; cpuSeconds: number };
/** `before`, `after`: not measured. `run`: a process that is no child of ours says itself what it took. */
export type Contender = {
  name: string;
  before?: () => Promise<unknown>;
  run: () => Promise<unknown>;
  after?: () => Promise<unknown>;
};

/** Processor seconds of all threads of a process and of the processes it waited for. */
export function cpuSecondsOf(pid: number | 'self'): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_PER_SECOND;
}

const isTaken = (value: unknown): value is Taken =>
  typeof value === 'object' && value !== null && 'seconds' in value && 'cpuSeconds' in value;

async function take({ before, run, after }: Contender): Promise<Taken> {
  await before?.();
  const [startMs, startCpu] = [performance.now(), cpuSecondsOf('self')];
  const said = await run();
  const taken = { seconds: (performance.now() - startMs) / 1000, cpuSeconds: cpuSecondsOf('self') - startCpu };
  await after?.();
  return isTaken(said) ? said : taken;
}

/** By name. Each round begins with another contender, so that none always comes after the same one. */
export async function takeInTurn(
  contenders: readonly Contender[],
  { rounds = ROUNDS, beforeRound }: { rounds?: number; beforeRound?: () => Promise<unknown> } = {},
): Promise<Map<string, Taken>> {
  const all = new Map<string, Taken[]>(contenders.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round += 1) {
    await beforeRound?.();
    for (const i of contenders.keys()) {
      const contender = contenders[(i + round) % contenders.length]!;
      all.get(contender.name)!.push(await take(contender));
    }
  }
  return new Map([...all].map(([name, taken]) => [name, medianOf(taken)]));
}

function medianOf(taken: readonly Taken[]): Taken {
  const middle = (values: number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
  return {
    seconds: middle(taken.map(({ seconds }) => seconds)),
    cpuSeconds: middle(taken.map(({ cpuSeconds: cpu }) => cpu)),
  };
}

/** Standard output of a command; it has to succeed. */
export async function outputOf(command: string, args: readonly string[], environment = {}): Promise<string> {
  const child = spawn(command, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  let [out, said] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}: ${said}`);
  return out;
}

/** In a shell, for redirections: `$1` and so on are `args`. */
export const shell = (script: string, args: readonly string[], environment = {}): Promise<string> =>
  outputOf('bash', ['-c', script, 'bash', ...args], environment);

/** Null when it is not installed. */
export const versionOf = (command: string, args: readonly string[]): Promise<string | null> =>
  outputOf(command, args).then(
    (out) => out.split('\n')[0]!.trim(),
    () => null,
  );

export const bytesOf = async (folder: string): Promise<number> =>
  Number((await shell('du -sb "$1"', [folder])).split('\t')[0]);

/** Nothing of the one before is left to be written. */
export const cleared = (folder: string) => async (): Promise<void> => {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder);
  await shell('sync', []);
};
