/** What the workflow bundle holds. */
export { backupSession } from './backup-session.ts';
export { restoreSession } from './restore-session.ts';
export { vmBackup } from './vm-backup.ts';
