/**
 * Protocol of the guest keeper: a Unix socket (mode 0600), one JSON object per line, both ways.
 *
 *   to the keeper    {"id": 1, "verb": "freeze", "params": {...}}
 *   from the keeper  {"id": 1, "result": ...}  or  {"id": 1, "error": {"code", "message", "details"}}
 *   of a stream      {"id": 1, "event": {...}} any number of times, after the result; {"id": 1, "end": true} last
 *
 * Replies come in any order. A connection owns the freezes asked for on it: when it closes, they are thawed.
 * A line longer than the limit, one that is not JSON, or too many requests at once end the connection.
 *
 *   ping      {}                                     -> { pid }
 *   vms       {}                                     -> VmState[]
 *   qmp       { vm, command, args? }                 -> what QEMU returns
 *   events    { vm }                                 -> {}, then MonitorEvent each, until either side closes
 *   freeze    { vm, run, deadlineMs (1..10000) }     -> { fileSystems }
 *   isFrozen  { vm }                                 -> boolean, asked of the guest
 *   thaw      { vm, run }                            -> ThawResult
 *   exec      { vm, key, path, args, timeoutMs }     -> ExecResult; the same key again gives the same result
 *   status    { vm }                                 -> GuestStatus, asked of the guest
 *   rescues   { vm }                                 -> Rescue[]
 */
import type { RunKey, SiteId, VmId } from '../../../schema/domain/ids.ts';

/** What the keeper looks after. `agent` absent: the VM has no guest agent, only a monitor. */
export type KeptVm = { vmId: VmId; qmp: string; agent?: string; site: SiteId };

export type VmState = {
  vmId: VmId;
  monitor: 'connected' | 'off';
  agent: 'connected' | 'idle' | 'none';
  frozen: { run: RunKey; deadlineAtMs: number } | null;
};
export type ThawResult = { fileSystems: number; byUs: boolean; frozenMs: number };
export type GuestFileSystem = {
  name: string;
  mountpoint: string;
  type: string;
  usedBytes?: number;
  totalBytes?: number;
};
export type GuestStatus = { freeze: 'frozen' | 'thawed'; version: string; fileSystems: GuestFileSystem[] };
/** Output in base64, as the guest agent kept it. */
export type ExecResult = {
  exitCode: number | null;
  signal: number | null;
  stdout: string;
  stderr: string;
  truncated: boolean;
};
/** A guest that had stopped for want of scratch space was let go on: `jobs` of `run` were cancelled. */
export type Rescue = { vmId: VmId; run: RunKey | null; jobs: string[]; at: string };

/** Name of the event that tells of a rescue, in the stream of the VM's monitor; `data` is a `Rescue`. */
export const SCRATCH_FULL = 'scratch-full';

export const MAX_DEADLINE_MS = 10_000;
export const MAX_REQUEST_BYTES = 1024 * 1024;
/** QEMU's answers about many nodes are long. */
export const MAX_REPLY_BYTES = 16 * 1024 * 1024;
/** An event stream whose reader is this far behind is cut. */
export const MAX_BEHIND_BYTES = 4 * 1024 * 1024;
export const MAX_CONNECTIONS = 256;
export const MAX_REQUESTS_AT_ONCE = 64;

export type KeeperRequest = { id: number; verb: string; params: Record<string, unknown> };
export type KeeperError = { code: string; message: string; details: Record<string, unknown> };
export type KeeperReply = { id: number; result?: unknown; error?: KeeperError; event?: unknown; end?: true };

export const encodeLine = (value: KeeperRequest | KeeperReply): string => `${JSON.stringify(value)}\n`;
