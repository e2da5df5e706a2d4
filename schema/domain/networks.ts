/** Networks, and the rules by which transfers between them are held back. Pure. */

/** Days and hours, by the clock of the site; `to` at or before `from`: until then on the next day. Minutes of the day. */
export type RuleHours = { days: Weekday[]; fromMinute: number; toMinute: number };
/** `from` and `to`: networks ("10.1.0.0/16"); a rule is about transfers between them, whichever way the bytes go. */
export type ThrottleRule = {
  name: string;
  from: string;
  to: string;
  rateBytesPerSecond: number;
  /** Empty: always. */
  hours: RuleHours[];
  /** Whether restores are held back, too. */
  restores: boolean;
  /** Whether what stays on one machine is held back, too, whatever its addresses. */
  local: boolean;
};
export type NetworksConfig = {
  /** IANA, of the hours. */
  timeZone: string;
  /** Addresses of these are used before others, in this order. */
  preferred: string[];
  throttle: ThrottleRule[];
};

export const weekdays = ['sunday', 'monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday'] as const;
export type Weekday = (typeof weekdays)[number];

type Bits = { family: 4 | 6; value: bigint };
export type Network = Bits & { prefix: number };

function bitsOfV4(text: string): bigint | null {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255))
    return null;
  return parts.reduce((value, part) => (value << 8n) | BigInt(part), 0n);
}

function bitsOfV6(text: string): bigint | null {
  const [head = '', tail, more] = text.split('::');
  if (more !== undefined) return null;
  const groupsOf = (part: string): string[] => (part === '' ? [] : part.split(':'));
  const [before, after] = [groupsOf(head), tail === undefined ? [] : groupsOf(tail)];
  const missing = 8 - before.length - after.length;
  if (tail === undefined ? missing !== 0 : missing < 1) return null;
  const groups = [...before, ...Array.from({ length: missing }, () => '0'), ...after];
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return null;
  return groups.reduce((value, group) => (value << 16n) | BigInt(`0x${group}`), 0n);
}

/** "::ffff:10.0.0.1" is the IPv4 address it stands for; a zone ("%eth0") does not count. Null: no address. */
function bitsOf(address: string): Bits | null {
  const text = address.replace(/%.*$/, '').replace(/^::ffff:(?=\d+\.)/i, '');
  const v4 = bitsOfV4(text);
  if (v4 !== null) return { family: 4, value: v4 };
  const v6 = bitsOfV6(text);
  return v6 === null ? null : { family: 6, value: v6 };
}

/** "10.0.0.0/8", "2001:db8::/32", or one address. Null: none of them, or with bits behind its prefix. */
export function parseNetwork(text: string): Network | null {
  const [address = '', prefixText, more] = text.split('/');
  const bits = bitsOf(address);
  if (!bits || more !== undefined || address.includes('%')) return null;
  const width = bits.family === 4 ? 32 : 128;
  if (prefixText !== undefined && !/^\d{1,3}$/.test(prefixText)) return null;
  const prefix = prefixText === undefined ? width : Number(prefixText);
  const isWhole = prefix <= width && (bits.value & ((1n << BigInt(width - prefix)) - 1n)) === 0n;
  return isWhole ? { ...bits, prefix } : null;
}

/** False for what is no address, and for one of the other family. */
export function contains(network: Network, address: string): boolean {
  const bits = bitsOf(address);
  if (bits?.family !== network.family) return false;
  const behind = BigInt((network.family === 4 ? 32 : 128) - network.prefix);
  return bits.value >> behind === network.value >> behind;
}

const isIn = (network: string, address: string): boolean => {
  const parsed = parseNetwork(network);
  return parsed !== null && contains(parsed, address);
};

/** Addresses in the order in which they are to be tried: those of preferred networks first, in the order of these. */
export function orderByPreference<T>(
  candidates: readonly T[],
  preferred: readonly string[],
  addressOf: (candidate: T) => string,
): T[] {
  const rank = (candidate: T): number => {
    const at = preferred.findIndex((network) => isIn(network, addressOf(candidate)));
    return at < 0 ? preferred.length : at;
  };
  return candidates.toSorted((a, b) => rank(a) - rank(b));
}

/** Both ends of a connection; null: it stays on one machine. */
export type ConnectionEnds = { local: string; remote: string } | null;

/** Whether a rule is about a connection, its hours aside. */
export function isAbout(rule: ThrottleRule, ends: ConnectionEnds, purpose: 'backup' | 'restore'): boolean {
  if (purpose === 'restore' && !rule.restores) return false;
  if (!ends) return rule.local;
  const { local, remote } = ends;
  return (isIn(rule.from, local) && isIn(rule.to, remote)) || (isIn(rule.from, remote) && isIn(rule.to, local));
}

/** The day of the week, and the minute of the day, in a time zone. */
export type LocalTime = { day: number; minute: number };

export function isWithinHours(hours: readonly RuleHours[], { day, minute }: LocalTime): boolean {
  if (hours.length === 0) return true;
  const today = weekdays[day]!;
  const yesterday = weekdays[(day + 6) % 7]!;
  return hours.some(({ days, fromMinute, toMinute }) => {
    if (fromMinute < toMinute) return days.includes(today) && minute >= fromMinute && minute < toMinute;
    return (days.includes(today) && minute >= fromMinute) || (days.includes(yesterday) && minute < toMinute);
  });
}

/** `timeZone`: IANA. */
export function localTime(timeZone: string, atMs: number): LocalTime {
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone,
    weekday: 'long',
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
  });
  const parts = Object.fromEntries(format.formatToParts(atMs).map(({ type, value }) => [type, value]));
  const day = weekdays.indexOf((parts['weekday'] ?? '').toLowerCase() as Weekday);
  return { day, minute: Number(parts['hour']) * 60 + Number(parts['minute']) };
}
