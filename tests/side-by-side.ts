/**
 * The order of the test files: whole products two beside each other, and unit tests beside them on what is left of the
 * processors. Three whole products at once slow each other down until their waits run out; one at a time would leave a
 * processor idle, and the longest of them must not be the last.
 */
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const WHOLE_LANES = 2;
/** About, of a file alone; only the order is made from it. */
const secondsOf = ({ moduleId }: TestSpecification): number =>
  moduleId.includes('real-guest-kills')
    ? 250
    : moduleId.includes('/crash/')
      ? 60
      : moduleId.includes('/end-to-end/')
        ? 60
        : 9;
const isWhole = ({ project }: TestSpecification): boolean => project.name === 'whole';

type Placed = { file: TestSpecification; startsAt: number };

/** Each file goes to the lane that is free first. */
function place(files: readonly TestSpecification[], lanes: number): Placed[] {
  const freeAt = Array.from({ length: lanes }, () => 0);
  return files.map((file) => {
    const lane = freeAt.indexOf(Math.min(...freeAt));
    const startsAt = freeAt[lane]!;
    freeAt[lane] = startsAt + secondsOf(file);
    return { file, startsAt };
  });
}

export class SideBySide extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = (await super.sort(files)).toSorted((one, other) => secondsOf(other) - secondsOf(one));
    const placed = [
      ...place(sorted.filter(isWhole), WHOLE_LANES),
      ...place(
        sorted.filter((one) => !isWhole(one)),
        1,
      ),
    ];
    return placed.toSorted((one, other) => one.startsAt - other.startsAt).map(({ file }) => file);
  }
}
