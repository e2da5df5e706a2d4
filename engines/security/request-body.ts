/** What is asked over HTTP, with a bound. */
import type { IncomingMessage } from 'node:http';
import { TidemarkError } from '../../schema/domain/errors.ts';

/** BAD_REQUEST beyond `mostBytes`. */
export async function bodyOf(request: IncomingMessage, mostBytes: number): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > mostBytes) throw new TidemarkError('BAD_REQUEST', `the request is longer than ${mostBytes} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}
