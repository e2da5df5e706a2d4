/**
 * `node bench/codec.ts [MiB of each kind]`: what each codec and level costs and saves on several kinds of data, in blocks of
 * 1 MiB on one core. It decides what the levels of a job mean (engines/mover/block-codec.ts). See README.md beside it.
 */
import { execFileSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { gzipSync } from 'node:zlib';
import { compressSync, uncompressSync } from 'lz4-napi';
import { renderTable } from '../cli/output/table.ts';
import { zstdCompress, zstdDecompress } from '../engines/mover/zstandard.ts';
import { releaseMemory } from '../schema/domain/memory.ts';
import { randomFrom } from '../tests/fixtures/mover/disks.ts';

const MIB = 1024 * 1024;
const ROUNDS = 3;
const limit = Number(process.argv[2] ?? 64) * MIB;

type Candidate = { name: string; encode: (block: Buffer) => Buffer; decode: (payload: Buffer) => Buffer };
type Row = { kind: string; name: string; encodeMs: number; decodeMs: number; ratio: number };

const zstd = (level: number): Candidate => ({
  name: `zstd ${level}`,
  encode: (block) => zstdCompress(level, block),
  decode: (payload) => zstdDecompress(payload, MIB)!,
});
const candidates: Candidate[] = [
  { name: 'lz4', encode: (block) => compressSync(block), decode: (payload) => uncompressSync(payload) },
  ...[-7, -5, -4, -3, -2, 1, 2, 3, 6, 9].map(zstd),
];

function* filesBelow(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* filesBelow(file);
    else if (entry.isFile()) yield file;
  }
}

/** Files of this machine one after another. */
function filled(folder: string, wanted: (file: string) => boolean): Buffer {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for (const file of filesBelow(folder)) {
    if (bytes >= limit) break;
    if (!wanted(file) || statSync(file).size < 4096) continue;
    pieces.push(readFileSync(file));
    bytes += pieces.at(-1)!.length;
  }
  return Buffer.concat(pieces).subarray(0, limit);
}

/** A database as an application has it: names, numbers, times, some text. */
function database(): Buffer {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'td-codec-'));
  const file = path.join(folder, 'db');
  const db = new DatabaseSync(file);
  db.exec('create table orders (id integer primary key, customer text, at text, total real, note text)');
  const insert = db.prepare('insert into orders (customer, at, total, note) values (?, ?, ?, ?)');
  const next = randomFrom(20_261_130);
  const words = readFileSync('/usr/share/common-licenses/GPL-3', 'utf8').split(/\s+/);
  const note = (): string => Array.from({ length: next(12) }, () => words[next(words.length)]).join(' ');
  while (!statSync(file, { throwIfNoEntry: false }) || statSync(file).size < limit) {
    db.exec('begin');
    for (let i = 0; i < 20_000; i += 1)
      insert.run(`customer-${next(50_000)}`, new Date(1.7e12 + next(1e9) * 100).toISOString(), next(1e6) / 100, note());
    db.exec('commit');
  }
  db.exec('create index by_customer on orders (customer)');
  db.close();
  const bytes = readFileSync(file).subarray(0, limit);
  rmSync(folder, { recursive: true });
  return bytes;
}

const isElf = (file: string): boolean => /\.so(\.|$)|\/bin\//.test(file);
const isText = (file: string): boolean => /\.(txt|md|py|h|js|json|html|pl|c|pm|xml)$/.test(file);
const kinds: Record<string, () => Buffer> = {
  executables: () => filled('/usr', isElf),
  text: () => filled('/usr', isText),
  database,
  compressed: () => gzipSync(filled('/usr', isElf), { level: 6 }),
  encrypted: () => randomFillSync(Buffer.allocUnsafe(limit)),
};

function msPerMib(bytes: number, work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return ((user + system) / 1000 / bytes) * MIB;
}

function take(kind: string, blocks: readonly Buffer[], { name, encode, decode }: Candidate): Row {
  const raw = blocks.reduce((sum, { length }) => sum + length, 0);
  const best = (pieces: readonly Buffer[], work: (piece: Buffer) => Buffer): number =>
    Math.min(
      ...Array.from({ length: ROUNDS }, () =>
        msPerMib(raw, () => pieces.forEach((piece) => releaseMemory(work(piece)))),
      ),
    );
  const encodeMs = best(blocks, encode);
  const payloads = blocks.map((block) => {
    const payload = encode(block);
    const copy = Buffer.from(payload);
    releaseMemory(payload);
    return copy;
  });
  const decodeMs = best(payloads, decode);
  const stored = payloads.reduce((sum, { length }, i) => sum + Math.min(length, blocks[i]!.length), 0);
  return { kind, name, encodeMs, decodeMs, ratio: raw / stored };
}

const model = execFileSync('uname', ['-m'], { encoding: 'utf8' }).trim();
console.log(`one core, ${model}; processor time, the best of ${ROUNDS}\n`);
for (const [kind, make] of Object.entries(kinds)) {
  const bytes = make();
  const blocks = Array.from({ length: Math.floor(bytes.length / MIB) }, (_, i) =>
    bytes.subarray(i * MIB, (i + 1) * MIB),
  );
  const rows = candidates.map((candidate) => take(kind, blocks, candidate));
  console.log(
    renderTable(rows, [
      { title: `${kind.toUpperCase()}, ${blocks.length} MIB`, of: ({ name }) => name },
      { title: 'ENCODE MS/MIB', of: ({ encodeMs }) => encodeMs.toFixed(2), right: true },
      { title: 'DECODE MS/MIB', of: ({ decodeMs }) => decodeMs.toFixed(2), right: true },
      { title: 'RATIO', of: ({ ratio }) => ratio.toFixed(3), right: true },
    ]),
  );
  console.log();
}
