/**
 * Leases limit what runs; a worker's slots are more, so that a task that was granted never waits behind one whose end
 * the scheduler knows already (schedule-to-start would take that for a dead machine).
 */
export const slotsFor = (leaseLimit: number): number => 2 * leaseLimit + 4;
