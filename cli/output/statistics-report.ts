/** How much of everything a repository has, for people. */
import type { RepositorySpace } from '../../schema/domain/maintenance-sessions.ts';
import type { RepositoryStatistics } from '../../schema/domain/maintenance.ts';
import { formatBytes } from '../../schema/domain/figures.ts';
import { type Column, renderTable } from './table.ts';

type VmRow = RepositoryStatistics['byVm'][number];
const vmColumns: Column<VmRow>[] = [
  { title: 'VM', of: (vm) => vm.name },
  { title: 'RESTORE POINTS', of: (vm) => String(vm.restorePoints), right: true },
  { title: 'LOGICAL', of: (vm) => formatBytes(vm.logicalBytes), right: true },
  { title: 'STORED', of: (vm) => formatBytes(vm.storedBytes), right: true },
  { title: 'ONLY ITS OWN', of: (vm) => formatBytes(vm.uniqueBytes), right: true },
];

export const percentOf = (part: number, whole: number): string =>
  whole === 0 ? '-' : `${((part / whole) * 100).toFixed(1)} %`;
const ratio = (from: number, to: number): string => (to === 0 ? '' : `, ${(from / to).toFixed(1)} : 1`);

export function renderStatistics(statistics: RepositoryStatistics, space: RepositorySpace | null): string {
  const { restorePoints, vms, logicalBytes, deduplicatedBytes, storedBytes, deadBytes, trashBytes, byVm } = statistics;
  const lines: [string, string][] = [
    ['restore points', `${restorePoints}; VMs: ${vms}`],
    ['logical', `${formatBytes(logicalBytes)}: their disks without zeros and holes`],
    ['after deduplication', `${formatBytes(deduplicatedBytes)}${ratio(logicalBytes, deduplicatedBytes)}`],
    ['stored', `${formatBytes(storedBytes)} after compression${ratio(deduplicatedBytes, storedBytes)}`],
    ['dead', deadBytes === null ? 'not known: no collection has run' : `${formatBytes(deadBytes)} that nothing needs`],
    ['trash', `${formatBytes(trashBytes)} that can be brought back`],
  ];
  if (statistics.time?.doubt) lines.push(['time', `stands still: ${statistics.time.doubt.message}`]);
  if (space)
    lines.push([
      'free',
      `${formatBytes(space.freeBytes)} of ${formatBytes(space.totalBytes)} (${percentOf(space.freeBytes, space.totalBytes)})`,
    ]);
  const head = lines.map(([name, value]) => `${`${name}:`.padEnd(20)} ${value}`).join('\n');
  return byVm.length === 0 ? head : `${head}\n\n${renderTable(byVm, vmColumns)}`;
}
