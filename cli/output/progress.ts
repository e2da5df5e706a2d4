/**
 * A session while it runs: repainted in place on a terminal, plain lines (only what changed) in a pipe.
 * Pure rendering; `cli/session-view.ts` gathers the figures.
 */
import { formatBytes } from '../../schema/domain/figures.ts';
import { stageLine, type StageTimes } from '../../schema/domain/stages.ts';
import { stageOrderOf } from '../session-stages.ts';
import { formatRate } from './table.ts';

export type LiveDisk = {
  diskKey: string;
  bytesDone: number;
  bytesTotal: number;
  readRateBytesPerSecond: number;
  /** Read from the source; less than done where nothing had changed. Of a restore: received, written. */
  readBytes: number;
  sentBytes: number;
  /** What the transfer waits for, in words; empty when it flows. */
  waitsFor: string;
  /** Where its time went so far; absent or null: not known. */
  stages?: StageTimes | null;
};

export type LiveVm = {
  name: string;
  step: string;
  result: string;
  /** Why the VM waits ("position 2: repository main has 4 of 4 tasks"), or its error. */
  note: string;
  disks: LiveDisk[];
};

export type LiveSession = {
  /** The "VMs" of a maintenance are its steps. */
  kind: 'backup' | 'restore' | 'maintenance';
  sessionId: string;
  state: string;
  result: string;
  /** What the session as a whole waits for; empty when it does not. */
  note: string;
  vms: LiveVm[];
  /** Why the picture may be old ("Temporal does not answer"); empty when it is not. */
  notices: string[];
};

const percentOf = (disk: LiveDisk): number =>
  disk.bytesTotal === 0 ? 100 : Math.min(100, Math.floor((disk.bytesDone / disk.bytesTotal) * 100));

function bar(percent: number, width = 20): string {
  const filled = Math.round((percent / 100) * width);
  return `[${'#'.repeat(filled)}${'.'.repeat(width - filled)}]`;
}

const flowWords = { backup: ['read', 'sent'], restore: ['received', 'written'], maintenance: null } as const;

function diskLine(disk: LiveDisk, kind: LiveSession['kind']): string {
  const words = flowWords[kind];
  const percent = percentOf(disk);
  const done = `${formatBytes(disk.bytesDone)} of ${formatBytes(disk.bytesTotal)}`;
  const figures = words
    ? `, ${words[0]} ${formatBytes(disk.readBytes)}, ${words[1]} ${formatBytes(disk.sentBytes)}`
    : '';
  const waits = disk.waitsFor === '' ? '' : `, waits for ${disk.waitsFor}`;
  const rate = disk.readRateBytesPerSecond === 0 ? '' : `, ${formatRate(disk.readRateBytesPerSecond)}`;
  const flow = stageLine(disk.stages, stageOrderOf(kind));
  const stages = flow === '' ? '' : `, ${flow}`;
  return `${disk.diskKey} ${bar(percent)} ${String(percent).padStart(3)} %  ${done}${figures}${rate}${waits}${stages}`;
}

const withNote = (text: string, note: string): string => (note === '' ? text : `${text} (${note})`);
const vmLine = (vm: LiveVm): string => withNote(`${vm.name}: ${vm.result === 'None' ? vm.step : vm.result}`, vm.note);
const sessionLine = (session: LiveSession): string =>
  withNote(`session ${session.sessionId}: ${session.state}`, session.note);

/**
 * The picture for a terminal: each line cut to `columns`; of more lines than `rows`, the last ones are only counted,
 * since what scrolled away cannot be repainted.
 */
export function renderSession(session: LiveSession, columns: number, rows = Infinity): string[] {
  const lines = [sessionLine(session), ...session.notices.map((notice) => `  warning: ${notice}`)];
  for (const vm of session.vms) {
    lines.push(`  ${vmLine(vm)}`);
    for (const disk of vm.disks) lines.push(`    ${diskLine(disk, session.kind)}`);
  }
  const room = Math.max(2, rows - 1);
  const shown =
    lines.length <= room ? lines : [...lines.slice(0, room - 1), `  ... ${lines.length - room + 1} more lines`];
  return shown.map((line) => line.slice(0, columns - 1));
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
    if (changed('session', sessionLine(session))) lines.push(sessionLine(session));
    const hadNotices = (last.get('notices') ?? '') !== '';
    if (changed('notices', session.notices.join('\n')) && (hadNotices || session.notices.length > 0))
      lines.push(
        ...(session.notices.length === 0 ? ['all answers again'] : session.notices.map((each) => `warning: ${each}`)),
      );
    for (const vm of session.vms) {
      if (changed(`vm ${vm.name}`, vmLine(vm))) lines.push(vmLine(vm));
      for (const disk of vm.disks) {
        const tenth = Math.floor(percentOf(disk) / 10);
        if (changed(`disk ${vm.name} ${disk.diskKey}`, `${tenth} ${disk.waitsFor}`)) {
          lines.push(`${vm.name} ${diskLine(disk, session.kind)}`);
        }
      }
    }
    return lines;
  };
}

export type Painter = { paint(lines: string[]): void; /** The next paint goes below what is there. */ done(): void };

/** Repaints a block of lines in place on a terminal. */
export function createPainter(out: NodeJS.WriteStream): Painter {
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
