/** One JSON object per line, as QMP and our own local protocols have it. */

/** Splits bytes into JSON objects; throws RangeError for a line past the limit, SyntaxError for what is not JSON. */
export function createLineSplitter(maxLineBytes: number): (chunk: Buffer) => Record<string, unknown>[] {
  let parts: Buffer[] = [];
  let bytes = 0;
  return (chunk) => {
    const lines: Record<string, unknown>[] = [];
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, start)) {
      bytes += end - start;
      if (bytes > maxLineBytes) throw new RangeError(`line longer than ${maxLineBytes} bytes`);
      lines.push(parseObject(Buffer.concat([...parts, chunk.subarray(start, end)])));
      parts = [];
      bytes = 0;
      start = end + 1;
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
    bytes += chunk.length - start;
    if (bytes > maxLineBytes) throw new RangeError(`line longer than ${maxLineBytes} bytes`);
    return lines;
  };
}

function parseObject(line: Buffer): Record<string, unknown> {
  const value: unknown = JSON.parse(line.toString('utf8'));
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new SyntaxError('line is no object');
  return value as Record<string, unknown>;
}
