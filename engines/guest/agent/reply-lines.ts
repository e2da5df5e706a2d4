/**
 * The agent's half of the conversation: JSON lines, a 0xFF byte before the reply to `guest-sync-delimited`.
 * Whatever cannot be parsed is an empty reply: after a lost connection the first line may be the rest of an old one.
 */
export type AgentReply = { return?: unknown; error?: { class?: string; desc?: string } };

const newline = 0x0a;
const delimiter = 0xff;

/** Splits bytes into replies; throws RangeError when one reply grows past `maxReplyBytes`. */
export function createReplyLines(maxReplyBytes: number): (chunk: Buffer) => AgentReply[] {
  let parts: Buffer[] = [];
  let bytes = 0;
  return (chunk) => {
    const replies: AgentReply[] = [];
    let start = 0;
    for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, start)) {
      replies.push(parseReply(Buffer.concat([...parts, chunk.subarray(start, end)])));
      parts = [];
      bytes = 0;
      start = end + 1;
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
    bytes += chunk.length - start;
    if (bytes > maxReplyBytes) throw new RangeError(`a reply of the guest agent is longer than ${maxReplyBytes} bytes`);
    return replies;
  };
}

function parseReply(line: Buffer): AgentReply {
  const text = line.subarray(line.lastIndexOf(delimiter) + 1).toString('utf8');
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}
