/** Parameters of a request, checked; BAD_REQUEST names the one that is wrong. */
import { isRunKey, runKey, type RunKey } from '../../../schema/domain/ids.ts';
import { TidemarkError } from '../../../schema/domain/errors.ts';

export type Params = Record<string, unknown>;

export const badRequest = (message: string): TidemarkError => new TidemarkError('BAD_REQUEST', message);

export function text(params: Params, name: string): string {
  const value = params[name];
  if (typeof value === 'string' && value.length > 0 && value.length <= 4096) return value;
  throw badRequest(`${name} is no text of 1 to 4096 characters`);
}

export function texts(params: Params, name: string): string[] {
  const value = params[name];
  if (Array.isArray(value) && value.length <= 256 && value.every((each) => typeof each === 'string')) return value;
  throw badRequest(`${name} is no list of at most 256 texts`);
}

export function duration(params: Params, name: string, mostMs: number): number {
  const value = params[name];
  if (typeof value === 'number' && value > 0 && value <= mostMs) return value;
  throw badRequest(`${name} is no number above 0 and up to ${mostMs}`);
}

export function run(params: Params): RunKey {
  const value = text(params, 'run');
  if (isRunKey(value)) return runKey(value);
  throw badRequest('run is no run key');
}

export function optionalObject(params: Params, name: string): Record<string, unknown> | undefined {
  const value = params[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'object' && !Array.isArray(value)) return value as Record<string, unknown>;
  throw badRequest(`${name} is no object`);
}
