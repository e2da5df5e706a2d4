/** How every command ends: its error on stderr with a hint, or as an object with `--json`, and its exit code. */
import { errorCodeOf, errorTable, messageOf, TidemarkError } from '../schema/domain/errors.ts';
import { exitCodeOf } from './exit-codes.ts';

export type ErrorReport = {
  error: { code: string | null; message: string; hint: string | null; details: Record<string, unknown> };
};

export function reportOf(error: unknown): ErrorReport {
  const code = errorCodeOf(error);
  const hint = code === undefined ? null : errorTable[code].hint;
  const details = error instanceof TidemarkError ? error.details : {};
  return { error: { code: code ?? null, message: messageOf(error), hint, details } };
}

export function printError(error: unknown, json: boolean): void {
  const report = reportOf(error);
  if (json) {
    process.stdout.write(`${JSON.stringify(report)}\n`);
    return;
  }
  process.stderr.write(`error: ${report.error.message}\n`);
  if (report.error.hint !== null) process.stderr.write(`hint: ${report.error.hint}\n`);
}

/** For commander's `action`: the command returns its exit code, or throws. */
export function runCommand<Args extends unknown[]>(
  command: (...args: Args) => Promise<number>,
): (...args: Args) => Promise<void> {
  return async (...args) => {
    try {
      process.exitCode = await command(...args);
    } catch (error) {
      const json = args.some((argument) => (argument as { json?: unknown } | null)?.json === true);
      printError(error, json);
      process.exitCode = exitCodeOf(errorCodeOf(error));
    }
  };
}

export const printJson = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
