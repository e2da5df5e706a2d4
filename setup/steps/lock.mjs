/** One set-up at a time per user: a second one waits for the first and then finds everything done. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cacheFolder, toolCacheFolder } from '../locate.mjs';
import { say } from './shell.mjs';

const folder = () => path.join(cacheFolder(), 'setup.lock');

/** When a process started, in clock ticks; null when there is none. Pids are given out again, so a pid alone says little. */
function startOf(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return state === 'Z' ? null : fields[18];
  } catch {
    return null;
  }
}

/** Pid of the living holder. It writes pid and start right after it made the folder. */
function livingHolder() {
  try {
    const [pid, start] = readFileSync(path.join(folder(), 'pid'), 'utf8').split(' ');
    return start !== undefined && startOf(pid) === start ? pid : null;
  } catch {
    return null;
  }
}

function tryLock() {
  try {
    mkdirSync(folder());
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  }
  writeFileSync(path.join(folder(), 'pid'), `${process.pid} ${startOf(process.pid)}`);
  return true;
}

/** What a set-up that was killed left half made; with the lock in hand nobody else is making it. */
function removeUnfinished() {
  for (const place of [cacheFolder(), toolCacheFolder()]) {
    const names = existsSync(place) ? readdirSync(place) : [];
    for (const name of names.filter((one) => one.startsWith('making-')))
      rmSync(path.join(place, name), { recursive: true, force: true });
  }
}

export async function withLock(work) {
  mkdirSync(cacheFolder(), { recursive: true });
  let withoutHolder = 0;
  let isTold = false;
  while (!tryLock()) {
    const holder = livingHolder();
    if (holder !== null && !isTold) say(`another set-up runs (pid ${holder}); waiting for it`);
    isTold ||= holder !== null;
    withoutHolder = holder === null ? withoutHolder + 1 : 0;
    // Seen dead in several looks: not merely between its mkdir and its pid.
    if (withoutHolder >= 5) rmSync(folder(), { recursive: true, force: true });
    await sleep(200);
  }
  removeUnfinished();
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
