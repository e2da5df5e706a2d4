/**
 * A session while it runs: repainted in place on a terminal, plain lines (only what changed) in a pipe.
 * Pure rendering; `cli/session-view.ts` gathers the figures.
 */
import { formatBytes, formatRate } from './table.ts';

export type LiveDisk = {
  diskKey: string;
  bytesDone: number;
  bytesTotal: number;
  readRateBytesPerSecond: number;
  sentBytes: number;
  /** What the transfer waits for, in words; empty when it flows. */
  waitsFor: string;
};

export type LiveVm = {
  name: string;
  step: string;
  result: string;
  /** Why the VM waits ("position 2: repository main has 4 of 4 tasks"), or its error. */
  note: string;
  disks: LiveDisk[];
};

export type LiveSession = { sessionId: string; state: string; result: string; vms: LiveVm[] };

const percentOf = (disk: LiveDisk): number =>
  disk.bytesTotal === 0 ? 100 : Math.min(100, Math.floor((disk.bytesDone / disk.bytesTotal) * 100));

function bar(percent: number, width = 20): string {
  const filled = Math.round((percent / 100) * width);
  return `[${'#'.repeat(filled)}${'.'.repeat(width - filled)}]`;
}

function diskLine(disk: LiveDisk): string {
  const percent = percentOf(disk);
  const figures = `${formatBytes(disk.bytesDone)} of ${formatBytes(disk.bytesTotal)}`;
  const sent = `sent ${formatBytes(disk.sentBytes)}`;
  const waits = disk.waitsFor === '' ? '' : `, waits for ${disk.waitsFor}`;
  const rate = formatRate(disk.readRateBytesPerSecond);
  return `${disk.diskKey} ${bar(percent)} ${String(percent).padStart(3)} %  ${figures}, ${rate}, ${sent}${waits}`;
}

const vmLine = (vm: LiveVm): string =>
  `${vm.name}: ${vm.result === 'None' ? vm.step : vm.result}${vm.note === '' ? '' : ` (${vm.note})`}`;

/** All lines of the picture, for a terminal; each cut to `columns`. */
export function renderSession(session: LiveSession, columns: number): string[] {
  const lines = [`session ${session.sessionId}: ${session.state}`];
  for (const vm of session.vms) {
    lines.push(`  ${vmLine(vm)}`);
    for (const disk of vm.disks) lines.push(`    ${diskLine(disk)}`);
  }
  return lines.map((line) => line.slice(0, columns - 1));
}

/** What to print in a pipe: state and step changes, and each disk at every tenth of its way. */
export function createLineReporter(): (session: LiveSession) => string[] {
  const last = new Map<string, string>();
  const changed = (key: string, value: string): boolean => {
    if (last.get(key) === value) return false;
    last.set(key, value);
    return true;
  };
  return (session) => {
    const lines: string[] = [];
    if (changed('session', session.state)) lines.push(`session ${session.sessionId}: ${session.state}`);
    for (const vm of session.vms) {
      if (changed(`vm ${vm.name}`, vmLine(vm))) lines.push(vmLine(vm));
      for (const disk of vm.disks) {
        const tenth = Math.floor(percentOf(disk) / 10);
        if (changed(`disk ${vm.name} ${disk.diskKey}`, `${tenth} ${disk.waitsFor}`)) {
          lines.push(`${vm.name} ${diskLine(disk)}`);
        }
      }
    }
    return lines;
  };
}

/** Repaints a block of lines in place on a terminal. */
export function createPainter(out: NodeJS.WriteStream): { paint(lines: string[]): void; done(): void } {
  let painted = 0;
  const clear = (): string => (painted === 0 ? '' : `\u001b[${painted}A\u001b[J`);
  return {
    paint(lines) {
      out.write(`${clear()}${lines.join('\n')}\n`);
      painted = lines.length;
    },
    done() {
      painted = 0;
    },
  };
}
