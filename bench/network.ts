/**
 * `node bench/network.ts [MiB]`: a transfer between two network namespaces, over a link of 100 Mbit/s with delay and loss. As root. Exit code 1 when
 * a bar is not met. See README.md beside it.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import type { TransferSummary } from '../schema/domain/restore-point.ts';
import { renderTable } from '../cli/output/table.ts';
import type { DiskModel } from './mover/disk-model.ts';

const MIB = 1024 * 1024;
const LANES = 2;
const RATE_MBIT = 100;
const PORT = 9440;
const [HERE, THERE] = ['td-bench-a', 'td-bench-b'] as const;
/** Documentation's network (RFC 5737): nobody has it. */
const [ADDRESS_HERE, ADDRESS_THERE] = ['192.0.2.1', '192.0.2.2'] as const;
const MUST_BE = 0.8;
/** Round trip in milliseconds, packets lost of a hundred. */
const links = [
  { roundTripMs: 0, loss: 0 },
  { roundTripMs: 20, loss: 0 },
  { roundTripMs: 100, loss: 0 },
  { roundTripMs: 20, loss: 1 },
  { roundTripMs: 100, loss: 1 },
];
type Link = (typeof links)[number];

const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' });
const removeNamespaces = (): void => {
  for (const namespace of [HERE, THERE]) if (ip('netns', 'list').includes(namespace)) ip('netns', 'del', namespace);
};

async function started(command: string, args: string[]): Promise<ChildProcess> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const isReady = await Promise.race([
    once(child.stdout, 'data').then(() => true),
    once(child, 'exit').then(() => false),
  ]);
  if (!isReady) throw new Error(`${args.join(' ')} ended`);
  return child;
}

const script = (name: string): string => path.join(import.meta.dirname, 'mover', `${name}-process.ts`);
const inside = (namespace: string, name: string, ...args: string[]): string[] => [
  'netns',
  'exec',
  namespace,
  process.execPath,
  script(name),
  ...args,
];

async function send(model: DiskModel): Promise<TransferSummary> {
  const args = inside(HERE, 'source', `${ADDRESS_THERE}:${PORT}`, String(LANES), JSON.stringify(model), '1');
  const child = spawn('ip', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  await once(child, 'close');
  return JSON.parse(out) as TransferSummary;
}

async function measure({ roundTripMs, loss }: Link, sizeBytes: number): Promise<TransferSummary> {
  removeNamespaces();
  const children: ChildProcess[] = [];
  try {
    for (const namespace of [HERE, THERE]) ip('netns', 'add', namespace);
    // A router's queue: as much as is under way, and 50 ms.
    const of = [RATE_MBIT, roundTripMs / 2, loss, roundTripMs + 50].map(String);
    const link = path.join(import.meta.dirname, 'network', 'link.py');
    const ends = [HERE, `${ADDRESS_HERE}/24`, THERE, `${ADDRESS_THERE}/24`];
    children.push(await started('python3', [link, ...ends, ...of]));
    children.push(await started('ip', inside(THERE, 'target', `${ADDRESS_THERE}:${PORT}`, String(LANES))));
    return await send({ sizeBytes, kind: 'full' });
  } finally {
    for (const child of children) child.kill('SIGKILL');
    removeNamespaces();
  }
}

const sizeBytes = Number(process.argv[2] ?? 384) * MIB;
const rows: (Link & { sentRate: number; reconnects: number })[] = [];
for (const link of links) {
  const { sentBytes, durationMs, reconnects } = await measure(link, sizeBytes);
  rows.push({ ...link, sentRate: sentBytes / MIB / (durationMs / 1000), reconnects });
}
const [best] = rows;
const share = (row: (typeof rows)[number]): number => row.sentRate / best!.sentRate;
console.log(
  `a disk of ${sizeBytes / MIB} MiB, ${LANES} lanes, a link of ${RATE_MBIT} Mbit/s (11.9 MiB/s with its headers)\n`,
);
console.log(
  renderTable(rows, [
    { title: 'ROUND TRIP', of: (row) => `${row.roundTripMs} ms`, right: true },
    { title: 'LOST', of: (row) => `${row.loss} %`, right: true },
    { title: 'SENT MIB/S', of: (row) => row.sentRate.toFixed(2), right: true },
    { title: 'OF THE FIRST', of: (row) => share(row).toFixed(2), right: true },
    { title: 'RECONNECTS', of: (row) => String(row.reconnects), right: true },
    {
      title: '',
      of: (row) =>
        row.roundTripMs !== 100 || row.loss > 0
          ? ''
          : share(row) >= MUST_BE
            ? `met: ${MUST_BE}`
            : `NOT MET: ${MUST_BE}`,
    },
  ]),
);
process.exitCode = share(rows[2]!) >= MUST_BE ? 0 : 1;
