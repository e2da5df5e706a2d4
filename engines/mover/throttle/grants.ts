/**
 * Who may send how fast: all connections of a repository process against the limits that hold for them. What one does
 * not use goes to the others. Pure but for what it remembers; `Throttle` gives it time and usage. Bytes per second.
 */
import type { RateLimits } from '../../../schema/domain/configuration.ts';
import {
  type ConnectionEnds,
  isAbout,
  isWithinHours,
  localTime,
  type NetworksConfig,
} from '../../../schema/domain/networks.ts';
import { type Claim, shareOut } from './share-out.ts';

/** `limit`: what holds it back, in words. Rate 0: nothing does. */
export type Grant = { rateBytesPerSecond: number; limit: string };
/** `transfer`: connections of one transfer share its share. */
export type GrantedConnection = {
  name: string;
  repositoryId: string;
  purpose: 'backup' | 'restore';
  transfer: string;
  ends: ConnectionEnds;
};
export type LimitsConfig = { networks: NetworksConfig | null; repositories: ReadonlyMap<string, RateLimits> };

type Limit = { name: string; rate: number; holds: (connection: GrantedConnection) => boolean };
/** `usedBytes`: at the last measurements, oldest first. */
type Measured = { atMs: number; bytes: number };
type Known = { connection: GrantedConnection; used: Measured[]; demand: number; grant: Grant };

/** Who uses so much of what he is granted can use more. */
const HUNGRY = 0.9;
/** Others are granted so much more than they use: they grow into it within some measurements. */
const ROOM = 1.25;
/**
 * What those who can use less are granted all the same, as a part of the limit: whoever wakes up can be seen. `LEAST`: a
 * transfer. `LEAST_OF_ALL`: all of them, for they may wake up together: by no more a limit is exceeded until that is seen.
 */
const LEAST = 0.02;
const LEAST_OF_ALL = 0.1;
/** Who is granted something else by no more is not told. */
const UNTOLD = 0.01;
const MEASUREMENTS = 5;
/** Who could have carried less between two measurements is judged by several of them: payloads leave in pieces. */
const TELLING_BYTES = 64 * 1024;
const FREE: Grant = { rateBytesPerSecond: 0, limit: '' };

export class Grants {
  readonly #known = new Map<string, Known>();
  #config: LimitsConfig = { networks: null, repositories: new Map() };
  #localTime: { second: number; day: number; minute: number } | null = null;

  configure(config: LimitsConfig): void {
    this.#config = config;
    this.#localTime = null;
  }

  /** Until it is measured it counts as one that uses all it gets. */
  begin(connection: GrantedConnection): void {
    this.#known.set(connection.name, { connection, used: [], demand: Infinity, grant: FREE });
  }

  end(name: string): void {
    this.#known.delete(name);
  }

  get isLimiting(): boolean {
    return [...this.#known.values()].some(({ grant }) => grant !== FREE);
  }

  grantOf(name: string): Grant {
    return this.#known.get(name)?.grant ?? FREE;
  }

  /** `bytes`: all that a connection has sent so far. */
  measure(name: string, bytes: number, atMs: number): void {
    const known = this.#known.get(name);
    if (!known) return;
    const { used, grant } = known;
    used.push({ atMs, bytes });
    if (used.length > MEASUREMENTS) used.shift();
    const [first, before] = [used[0]!, used.at(-2)];
    if (!before || atMs <= before.atMs) return;
    const newest = rateBetween(before, used.at(-1)!);
    const isTelling = (grant.rateBytesPerSecond * (atMs - before.atMs)) / 1000 >= TELLING_BYTES;
    // Who stands still leaves his share at once, who moves again has it at once.
    if (newest === 0 && isTelling) known.demand = 0;
    else if (newest >= grant.rateBytesPerSecond * HUNGRY) known.demand = Infinity;
    else if (used.length === MEASUREMENTS) {
      const rate = rateBetween(first, used.at(-1)!);
      known.demand = rate >= grant.rateBytesPerSecond * HUNGRY ? Infinity : rate * ROOM;
    }
  }

  /** Shares out anew. Names of those whose grant changed. */
  share(nowMs: number): string[] {
    const limits = this.#limits(nowMs);
    const transfers = new Map<string, Known[]>();
    for (const known of this.#known.values()) {
      const { repositoryId, purpose, transfer } = known.connection;
      const key = `${repositoryId} ${purpose} ${transfer}`;
      transfers.set(key, [...(transfers.get(key) ?? []), known]);
    }
    const groups = [...transfers.values()];
    const claims = groups.map((group): Claim => {
      const held = [...limits.keys()].filter((at) => group.some(({ connection }) => limits[at]!.holds(connection)));
      return { demand: group.reduce((sum, { demand }) => sum + demand, 0), limits: held };
    });
    const capacities = limits.map(({ rate }) => rate);
    const rates = shareOut(capacities, claims);
    const leasts = capacities.map((rate, limit) => {
      const held = groups.filter((_, at) => claims[at]!.limits.includes(limit)).flat();
      return leastOfOne(rate, held);
    });
    return groups.flatMap((group, at) => {
      const held = claims[at]!.limits;
      const lowest = held.map((limit) => limits[limit]!).toSorted((a, b) => a.rate - b.rate)[0];
      if (!lowest) return within(group, rates[at]!, null);
      const least = Math.min((lowest.rate * LEAST) / group.length, ...held.map((limit) => leasts[limit]!));
      return within(group, rates[at]!, { name: lowest.name, least });
    });
  }

  #limits(nowMs: number): Limit[] {
    const { networks, repositories } = this.#config;
    const rules = networks?.throttle ?? [];
    const now = rules.some(({ hours }) => hours.length > 0) ? this.#timeAt(networks!.timeZone, nowMs) : null;
    const active = rules.filter(({ hours }) => now === null || isWithinHours(hours, now));
    const ofRules = active.map((rule): Limit => ({
      name: `rule ${rule.name}`,
      rate: rule.rateBytesPerSecond,
      holds: ({ ends, purpose }) => isAbout(rule, ends, purpose),
    }));
    return [...ofRules, ...[...repositories].flatMap(([id, limits]) => limitsOf(id, limits))];
  }

  /** Asking for the time of a zone costs something: once a second. */
  #timeAt(timeZone: string, nowMs: number): { day: number; minute: number } {
    const second = Math.floor(nowMs / 1000);
    if (this.#localTime?.second !== second) this.#localTime = { second, ...localTime(timeZone, nowMs) };
    return this.#localTime;
  }
}

const rateBetween = (from: Measured, to: Measured): number => ((to.bytes - from.bytes) * 1000) / (to.atMs - from.atMs);

function limitsOf(id: string, { readBytesPerSecond, writeBytesPerSecond }: RateLimits): Limit[] {
  const limit = (purpose: 'backup' | 'restore', name: string, rate: number | null): Limit[] =>
    rate === null ? [] : [{ name, rate, holds: (one) => one.repositoryId === id && one.purpose === purpose }];
  return [
    ...limit('restore', `repository ${id}, reading`, readBytesPerSecond),
    ...limit('backup', `repository ${id}, writing`, writeBytesPerSecond),
  ];
}

/** Of a limit that holds for `held`, whoever of them is asleep. */
function leastOfOne(rate: number, held: readonly Known[]): number {
  const asleep = held.filter(({ demand }) => demand < rate * LEAST).length;
  return (rate * LEAST_OF_ALL) / Math.max(1, asleep);
}

/** A transfer's share among its connections; the names of those whose grant changed. `least`: per connection. */
function within(group: readonly Known[], share: number, limit: { name: string; least: number } | null): string[] {
  const rates = shareOut(
    [share],
    group.map(({ demand }) => ({ demand, limits: [0] })),
  );
  return group.flatMap((known, at) => {
    const rate = limit && known.demand < limit.least ? limit.least : rates[at]!;
    const grant = limit ? { rateBytesPerSecond: Math.max(1, Math.round(rate)), limit: limit.name } : FREE;
    const told = known.grant.rateBytesPerSecond;
    const isSame =
      (grant === FREE) === (known.grant === FREE) &&
      grant.limit === known.grant.limit &&
      Math.abs(grant.rateBytesPerSecond - told) <= told * UNTOLD;
    if (isSame) return [];
    known.grant = grant;
    return [known.connection.name];
  });
}
