import type { Endpoint } from '../../schema/domain/hypervisor.ts';

/** A socket's path, or HOST:PORT. */
export function endpointOf(text: string): Endpoint {
  const [host, port] = text.split(':');
  return port === undefined ? { unix: text } : { host: host!, port: Number(port) };
}
