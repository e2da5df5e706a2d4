/** A job's `retention`: how long its restore points stay. */
import { z } from 'zod';
import { DEFAULT_MINIMUM_GOOD, months, weekdays } from '../../schema/domain/retention.ts';
import { oneOf, strict, whole } from './shape-leaves.ts';

/** A number alone, or a mapping with more. */
const kept = <S extends z.ZodRawShape>(shape: S) =>
  z.preprocess(
    (value) => (value !== null && typeof value === 'object' ? value : { keep: value }),
    strict(`a number, or a mapping with ${Object.keys(shape).join(' and ')}`, shape),
  );

const rules = {
  count: whole(1, 100_000).optional(),
  days: whole(1, 36_500).optional(),
  weekly: kept({ keep: whole(1, 5200), weekday: oneOf(weekdays).prefault('monday') }).optional(),
  monthly: whole(1, 1200).optional(),
  yearly: kept({ keep: whole(1, 100), month: oneOf(months).prefault('january') }).optional(),
};
const ruleNames = Object.keys(rules) as (keyof typeof rules)[];

export const retention = strict('a mapping with count, days, weekly, monthly, yearly and more', {
  ...rules,
  minimum: whole(1, 1000).prefault(DEFAULT_MINIMUM_GOOD),
  deletedVmDays: whole(1, 36_500).optional(),
}).refine((value) => ruleNames.some((name) => value[name] !== undefined), {
  error: `at least one of ${ruleNames.join(', ')}`,
});
export type RetentionText = z.output<typeof retention>;
