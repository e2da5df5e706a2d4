/**
 * A repository of a given size as numbers: VMs with a disk each, every one with a full and increments. A leaf of a map, 256
 * blocks, is written whole or not at all: an increment changes one in twenty, spread over the disk. Records are
 * numbered as they were written.
 */
import { restorePointId, vmId, type RestorePointId, type VmId } from '../../schema/domain/ids.ts';
import { PAGE_ENTRIES } from '../../schema/repository/limits.ts';
import { idOf, mix } from '../index/generator.ts';

export const VMS = 20;
export const ROUNDS = 50;
export const RESTORE_POINTS = VMS * ROUNDS;
export const LEAF_BLOCKS = PAGE_ENTRIES;
const CHANGED_SHARE = 1 / 20;
/**
 * Not a multiple of a leaf's blocks: packs die in part. So many that a pack is not small, whatever little its payloads have: it
 * would be merged with others, a cost of jobs that run often and not of what died.
 */
export const PACK_RECORDS = 900;
export const PAYLOAD_BYTES = 8;
/** From here on, `idOf` is of no record. */
const NO_RECORD = 2 ** 30;

/** Per disk; `changed` by each increment. */
export type Shape = { leaves: number; changed: number };
/** A leaf that a restore point wrote; its records follow one another. */
export type Written = { vm: number; round: number; leaf: number; firstRecord: number };

export function shapeOf(blocks: number): Shape {
  const perVm = blocks / VMS / LEAF_BLOCKS;
  const leaves = Math.max(20, Math.ceil(perVm / (1 + CHANGED_SHARE * (ROUNDS - 1))));
  return { leaves, changed: Math.max(1, Math.round(leaves * CHANGED_SHARE)) };
}

export const blocksOf = ({ leaves, changed }: Shape): number => VMS * (leaves + changed * (ROUNDS - 1)) * LEAF_BLOCKS;

export function changedLeaves({ leaves, changed }: Shape, vm: number, round: number): number[] {
  if (round === 0) return Array.from({ length: leaves }, (_, leaf) => leaf);
  const first = mix(vm * ROUNDS + round) % leaves;
  return Array.from({ length: changed }, (_, at) => (first + Math.floor((at * leaves) / changed)) % leaves);
}

/** In the order in which they were written: round by round, every VM in each. */
export function* everythingWritten(shape: Shape): Generator<Written> {
  let firstRecord = 0;
  for (let round = 0; round < ROUNDS; round += 1)
    for (let vm = 0; vm < VMS; vm += 1)
      for (const leaf of changedLeaves(shape, vm, round)) {
        yield { vm, round, leaf, firstRecord };
        firstRecord += LEAF_BLOCKS;
      }
}

/** Records of each pack that die with the first restore point of every VM: of leaves that its second wrote anew. */
export function deadPerPack(shape: Shape): Map<number, number> {
  const dead = new Map<number, number>();
  for (let vm = 0; vm < VMS; vm += 1)
    for (const leaf of changedLeaves(shape, vm, 1)) {
      const first = (vm * shape.leaves + leaf) * LEAF_BLOCKS;
      for (let record = first; record < first + LEAF_BLOCKS; record += 1) {
        const pack = Math.floor(record / PACK_RECORDS);
        dead.set(pack, (dead.get(pack) ?? 0) + 1);
      }
    }
  return dead;
}

export const pointIdOf = (vm: number, round: number): RestorePointId =>
  restorePointId(idOf(NO_RECORD + vm * ROUNDS + round).toString('hex', 0, 16));
export const vmIdOf = (vm: number): VmId => vmId(`22222222-0000-4000-8000-${String(vm).padStart(12, '0')}`);
