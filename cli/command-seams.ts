/** Seams of commands that work on a repository themselves: warnings go to the person. */
import type { Log, Seams } from '../schema/domain/seams.ts';
import { noMeter, systemClock, systemRandom } from '../workers/runtime/seams.ts';

const quiet = (): void => undefined;
const say = (message: string, fields: Record<string, unknown> = {}): void =>
  console.error(`warning: ${[message, ...Object.values(fields).map(String)].join(', ')}`);
const log: Log = { debug: quiet, info: quiet, warn: say, error: say, child: () => log };

export const commandSeams: Seams = { clock: systemClock, random: systemRandom, meter: noMeter, log };
