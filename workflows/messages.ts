/** Queries and signals the workflows answer; their names are the contract with the command line. */
import { defineQuery, defineSignal } from '@temporalio/workflow';
import type { MaintenanceProgressView } from '../schema/domain/maintenance-sessions.ts';
import { queryNames, signalNames, type RestoreProgressView, type VmProgress } from '../schema/domain/sessions.ts';

export const vmProgressQuery = defineQuery<VmProgress>(queryNames.vmProgress);
export const restoreProgressQuery = defineQuery<RestoreProgressView>(queryNames.restoreProgress);
export const maintenanceProgressQuery = defineQuery<MaintenanceProgressView>(queryNames.maintenanceProgress);
/** Graceful: no VM is begun any more, those in work finish. An immediate stop is a cancellation. */
export const stopSignal = defineSignal(signalNames.stop);
