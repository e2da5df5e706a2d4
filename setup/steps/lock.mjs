/** One set-up at a time per user: a second one waits for the first and then finds everything done. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cacheFolder } from '../locate.mjs';
import { say } from './shell.mjs';

const folder = () => path.join(cacheFolder(), 'setup.lock');

/** The holder writes its pid right after the folder; a folder without a living holder is left over. */
function holderOf() {
  try {
    return Number(readFileSync(path.join(folder(), 'pid'), 'utf8'));
  } catch {
    return null;
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

function tryLock() {
  try {
    mkdirSync(folder());
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  }
  writeFileSync(path.join(folder(), 'pid'), String(process.pid));
  return true;
}

export async function withLock(work) {
  mkdirSync(cacheFolder(), { recursive: true });
  let withoutHolder = 0;
  for (let tries = 0; !tryLock(); tries += 1) {
    const holder = holderOf();
    if (tries === 0 && holder !== null) say(`another set-up runs (pid ${holder}); waiting for it`);
    withoutHolder = holder !== null && isAlive(holder) ? 0 : withoutHolder + 1;
    // Seen dead in several looks: not merely between its mkdir and its pid.
    if (withoutHolder >= 5) rmSync(folder(), { recursive: true, force: true });
    await sleep(200);
  }
  const release = () => rmSync(folder(), { recursive: true, force: true });
  process.once('exit', release);
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(130));
  try {
    return await work();
  } finally {
    process.removeListener('exit', release);
    release();
  }
}
