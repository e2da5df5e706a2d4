/** What the workflow bundle holds. */
export { backupSession } from './backup-session.ts';
export { janitor } from './janitor.ts';
export { repositoryMaintenance } from './repository-maintenance.ts';
export { restorePointChange } from './restore-point-change.ts';
export { restoreSession } from './restore-session.ts';
export { vmBackup } from './vm-backup.ts';
