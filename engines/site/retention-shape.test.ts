import { describe, expect, it, test } from 'vitest';
import { edited, refusal } from '../../tests/fixtures/site.ts';
import { parseSite } from './parse-site.ts';

test.each([
  ['{ count: 5 }', { count: 5, days: null, minimum: 3, deletedVmDays: null, timeZone: 'UTC' }],
  ['{ days: 30 }', { count: null, days: 30, weekly: null, monthly: null, yearly: null }],
  ['{ weekly: 4 }', { count: null, days: 14, weekly: { keep: 4, weekday: 'monday' } }],
  [
    '{ count: 1, yearly: 2, monthly: 6 }',
    { count: 1, days: null, monthly: { keep: 6 }, yearly: { keep: 2, month: 'january' } },
  ],
])('retention %s', (value, policy) => {
  const text = edited('repository: main', `repository: main\n    retention: ${value}`);
  expect(parseSite(text, 'site.yaml').jobs[0]!.retention).toMatchObject(policy);
});

describe('one mistake', () => {
  const retentionCases: [string, string, string][] = [
    [
      'without a rule',
      '{ minimum: 5 }',
      '14:16: jobs[0].retention: expected at least one of count, days, weekly, monthly, yearly, found a mapping',
    ],
    [
      'nothing',
      '',
      '14:16: jobs[0].retention: expected a mapping with count, days, weekly, monthly, yearly and more, found nothing',
    ],
    [
      'none at all',
      '{ count: 0 }',
      '14:25: jobs[0].retention.count: expected a whole number from 1 to 100000, found the number 0',
    ],
    [
      'an unknown key',
      '{ count: 7, day: 7 }',
      '14:28: jobs[0].retention.day: this key is not known here (count, days, weekly, monthly, yearly, minimum, deletedVmDays); did you mean "days"?',
    ],
    [
      'a week of another kind',
      '{ weekly: often }',
      '14:26: jobs[0].retention.weekly.keep: expected a whole number from 1 to 5200, found "often"',
    ],
    [
      'a list of weeks',
      '{ weekly: [4] }',
      '14:26: jobs[0].retention.weekly: expected a number, or a mapping with keep and weekday, found a list of 1',
    ],
    [
      'a weekday',
      '{ weekly: { keep: 4, weekday: sundae } }',
      '14:46: jobs[0].retention.weekly.weekday: expected one of monday, tuesday, wednesday, thursday, friday, saturday, sunday, found "sundae"; did you mean "sunday"?',
    ],
    [
      'a month',
      '{ yearly: { keep: 4, month: 1 } }',
      '14:44: jobs[0].retention.yearly.month: expected one of january, february, march, april, may, june, july, august, september, october, november, december, found the number 1',
    ],
  ];
  it.each(retentionCases)('of a retention: %s', (_what, value, said) => {
    const line = `repository: main\n    retention: ${value}`;
    expect(refusal(edited('repository: main', line)).message).toBe(`site.yaml:${said}`);
  });
});
