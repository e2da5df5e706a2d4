/**
 * What this thread has computed so far, ms, calls into the system included: of work that never waits it is the time
 * that it takes when nothing else runs.
 */
export function threadMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
