/**
 * Every error a person can meet, in one table: code, what to do about it, hint.
 * `docs/errors.md` is the same table for users; a test fails when the two differ.
 */

export type Disposition = 'retry-here' | 'retry-elsewhere' | 'new-base' | 'operator' | 'damage' | 'bug';
type Row = { disposition: Disposition; hint: string };
const row = (disposition: Disposition, hint: string): Row => ({ disposition, hint });

/** Hint: a full sentence a night operator can act on. */
export const errorTable = {
  // configuration and requests
  BAD_CONFIG: row('operator', 'Correct the file at the line named and run the command again; nothing was changed.'),
  BAD_REQUEST: row('operator', 'Correct the argument named; `tidemark <command> --help` shows what is expected.'),
  NOT_FOUND: row('operator', 'List what there is with `tidemark <kind> list` and use a name from it.'),
  JOB_NOT_FOUND: row('operator', 'List the jobs with `tidemark job list`, or add this one to site.yaml and apply it.'),
  JOB_TOO_LARGE: row('operator', 'Split the job into several in site.yaml and apply it; nothing was begun.'),
  ALREADY_RUNNING: row('operator', 'Wait for the session named, or stop it with `tidemark session stop`.'),
  RESOURCE_REMOVED: row(
    'operator',
    'Apply a site.yaml that has what is missing, or take out of the job what needs it.',
  ),
  // waiting
  NO_CAPACITY: row('retry-here', 'Nothing is to be done: it goes on when a slot is free.'),
  LEASE_LOST: row('retry-here', 'Nothing is to be done: the session takes its resources again.'),
  HOST_DRAINING: row(
    'retry-elsewhere',
    'Nothing is to be done: the machine is being shut down and the work moves or waits.',
  ),
  UNREACHABLE: row(
    'retry-here',
    'Check that the service at the address named runs and that its socket or port is right.',
  ),
  // virtual machines and hypervisors
  VM_NOT_FOUND: row(
    'operator',
    'Check the name in site.yaml and the configuration of the host; `tidemark host list` shows its VMs.',
  ),
  VM_MOVED: row('retry-elsewhere', 'Nothing is to be done: the session follows the VM to its new host.'),
  VM_OFF: row(
    'operator',
    'Start the VM or correct its monitor socket, or name its disks in site.yaml so that it can be backed up powered off.',
  ),
  PLATFORM_BUSY: row(
    'retry-here',
    'Another operation holds the VM (a job, an NBD server, a migration); wait for it or end it.',
  ),
  HYPERVISOR_ERROR: row('retry-here', 'Read the hypervisor message; the session has undone what it did.'),
  TRACKING_LOST: row(
    'new-base',
    'Nothing is to be done: the disk is compared with its last restore point, or read in full.',
  ),
  AUDIT_MISMATCH: row(
    'new-base',
    'The disk is compared with its last restore point in this session, so the new restore point is good; those marked suspect may lack changes. Find out what wrote past change tracking (docs/audit.md) before it happens again.',
  ),
  CHECKPOINT_LOST: row(
    'operator',
    'The VM was stopped or killed while it was read; run the job again: the next session compares digests.',
  ),
  BACKING_FILE: row(
    'operator',
    'Back up the flattened image, or set `allowBacking: true` for this image if its backing file is fixed.',
  ),
  BAD_DISK: row('operator', 'The disk cannot be backed up as it is; the message says why and of which disk it speaks.'),
  IMAGE_IN_USE: row(
    'operator',
    'A running VM holds the image; shut it down, or back it up through the `qemu` provider with its right monitor socket.',
  ),
  SCRATCH_FULL: row(
    'operator',
    'Give the scratch folder of the host more room (up to the disk size in the worst case); the guest was let go on.',
  ),
  NOT_OURS: row('bug', 'Tidemark refused to touch something that it did not make; report this with the session log.'),
  FENCED: row('bug', 'A newer attempt owns this work; this one stopped. Nothing is to be done unless it repeats.'),
  // guests
  GUEST_UNREACHABLE: row(
    'operator',
    'Check that the guest agent is installed and runs in the guest, and the agent socket in the host configuration.',
  ),
  GUEST_FREEZE_FAILED: row(
    'operator',
    'Look into the guest agent log in the guest; policy `prefer` would have taken a crash-consistent restore point.',
  ),
  GUEST_REQUIRED: row(
    'operator',
    'The job requires a consistent guest and this was not reached; mend the guest agent, or set policy `prefer`.',
  ),
  GUEST_SCRIPT_FAILED: row(
    'operator',
    'Run the script in the guest by hand and mend it; the message has the end of what it said.',
  ),
  GUEST_THAWED_EARLY: row(
    'retry-here',
    'The guest was thawed at the deadline before the checkpoint was complete; look for a slow hypervisor or storage.',
  ),
  // transfer and repository
  REPOSITORY_NOT_ONE: row(
    'operator',
    'Mount the disk of the repository, or name the folder that has its repository.json; only one that is new in site.yaml begins in an empty folder.',
  ),
  REPOSITORY_IN_USE: row(
    'operator',
    'Another process owns the repository: stop it (a stack: `tidemark down`), or use that one.',
  ),
  REPOSITORY_FULL: row(
    'operator',
    'Free space on the repository disk, or add some; then run the job again: blocks already stored are kept.',
  ),
  REPOSITORY_NEWER: row('operator', 'The repository was written by a newer version; use that version or a newer one.'),
  REPOSITORY_OLDER: row(
    'operator',
    'It was made before the first release, in a format that none reads: restore what you need with the version that made it, and back up to a new, empty folder.',
  ),
  REPOSITORY_CORRUPT: row(
    'damage',
    'A file of the repository is damaged; the message names it. Do not delete anything; see docs/operations.md.',
  ),
  RESTORE_POINT_SEALED: row('operator', 'This run key is sealed already; nothing is to be done.'),
  RESTORE_POINT_ABORTED: row('retry-here', 'This run key was aborted; a new session makes a new restore point.'),
  RESTORE_POINT_NOT_FOUND: row('operator', 'List the restore points with `tidemark restore-point list`.'),
  RESTORE_POINT_HELD: row(
    'operator',
    'It is kept, held or locked, for the reason named: `tidemark restore-point unkeep` or `release` first, or wait for the lock to end.',
  ),
  LAST_RESTORE_POINT: row(
    'operator',
    'It is the newest good restore point of its VM and job; make a newer one first, or say `--last` if the VM is not needed any more.',
  ),
  CLOCK_IN_DOUBT: row(
    'operator',
    'Set the clocks of the repository’s host and of the Temporal server right, then ask again; until then nothing is removed.',
  ),
  RESTORE_POINT_DATE: row(
    'operator',
    'The clocks were wrong when it was sealed, so retention leaves its VM alone: remove it with `tidemark restore-point remove`, or wait until its date has passed.',
  ),
  DAMAGE_FOUND: row(
    'damage',
    'The report names what is damaged and which restore points it hits: run their jobs, which store again what the VMs still have, then `tidemark repository repair`.',
  ),
  NOT_CONSERVED: row(
    'bug',
    'Source and target disagree on what was transferred, so nothing was sealed; report this with the session log.',
  ),
  DAMAGED_BLOCK: row(
    'damage',
    'Restore another restore point, if the message names a whole one. If not, run the job of the VM: while the VM still has the block, it is stored again, and all that need it are whole. Then `tidemark repository repair` saves what else is sound and says what is lost; delete nothing.',
  ),
  TAMPERED: row(
    'damage',
    'It is whole, but nobody with the keys of the repository wrote it there: find out who had access to the medium, write nothing to it, and go on from a copy.',
  ),
  KEY_MISSING: row(
    'operator',
    'Put the passphrase or key file of the repository where `encryption` in site.yaml says, or correct that and apply it; nothing was changed.',
  ),
  NOT_ENCRYPTED: row(
    'operator',
    'Find out whether somebody has put a plain repository in the place of yours; if it is the one meant, take `encryption` out of site.yaml: a repository is encrypted from its first day, or never.',
  ),
  WRONG_KEY: row(
    'operator',
    'Give the passphrase or the key file of one of the key slots of this repository; nothing was changed.',
  ),
  BAD_PAYLOAD: row(
    'retry-here',
    'A block arrived damaged and was asked for again; if it repeats, test the memory and the network of the machines named.',
  ),
  PROTOCOL_ERROR: row(
    'bug',
    'The other end sent what the protocol does not allow; check that both machines run the same version.',
  ),
  TRANSFER_FAILED: row(
    'retry-elsewhere',
    'Nothing is to be done: the transfer goes on from its cursor; if its proxy stays silent, on another of the job.',
  ),
  INDEX_REBUILDING: row(
    'retry-here',
    'Nothing is to be done: the local index of the repository was damaged and is being made anew from its packs.',
  ),
  STORAGE_ERROR: row(
    'operator',
    'The operating system refused a file operation, or a file is gone that was made; the message names file and cause.',
  ),
  // machines and their certificates
  SECURITY_NOT_READY: row(
    'operator',
    'On the machine of the stack run `tidemark site init`; on any other one `tidemark host enroll` with a token made by `tidemark machine token`.',
  ),
  ENROLL_REFUSED: row(
    'operator',
    'Make a new token on the machine of the stack: `tidemark machine token <machine> --roles <roles>`.',
  ),
  CERTIFICATE_INVALID: row(
    'operator',
    'Compare the clocks of both machines first; then enrol the machine named anew, or put the right file where the message says.',
  ),
  PAYLOAD_KEY_MISSING: row(
    'operator',
    'Put the key back into `config/payload-keys` of every machine: keys stay there for as long as histories that need them.',
  ),
  PEER_REFUSED: row(
    'retry-elsewhere',
    'One machine did not take the other for what it should be; read why in the log of the repository, and see docs/security.md. Where another machine answers at its address, name the network that leads to it in `preferred` of `networks`, or give the repository one address as `listen`.',
  ),
  // restore
  TARGET_EXISTS: row('operator', 'Choose another name, or move the existing file away: a restore never overwrites.'),
  TARGET_NOT_ALLOWED: row(
    'operator',
    'Restore into a folder listed under `restoreFolders` of the proxy in the machine configuration.',
  ),
  // stack
  STACK_RUNNING: row(
    'operator',
    'The stack of this folder runs already; `tidemark status` shows it, `tidemark down` ends it.',
  ),
  STACK_NOT_RUNNING: row('operator', 'Start it with `tidemark up`.'),
  MISSING_TOOL: row('operator', 'Run the set-up (`npm run setup`), which installs it or says the exact command.'),
  DATABASE_ERROR: row('retry-here', 'Check that the database runs: `tidemark doctor`.'),
  STOPPED: row('operator', 'Somebody stopped the session; run the job again when wanted.'),
  BUG: row('bug', 'This should not happen; report it with the log of the process named.'),
} as const satisfies Record<string, Row>;

export type ErrorCode = keyof typeof errorTable;
export const isErrorCode = (text: string): text is ErrorCode => Object.hasOwn(errorTable, text);

/** What engines throw. Message: lower case, what failed, with which id. `details` is JSON. */
export class TidemarkError extends Error {
  override readonly name = 'TidemarkError';
  readonly code: ErrorCode;
  readonly details: Record<string, unknown>;

  constructor(code: ErrorCode, message: string, details: Record<string, unknown> = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.details = details;
  }

  get disposition(): Disposition {
    return errorTable[this.code].disposition;
  }

  get hint(): string {
    return errorTable[this.code].hint;
  }
}

/** The code of an error of ours, else undefined. Works across threads, where classes do not survive. */
export function errorCodeOf(error: unknown): ErrorCode | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' && isErrorCode(code) ? code : undefined;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
