/** Names of folders made of names that people gave (FORMAT.md, "Layout"). */
import type { Branded } from '../domain/ids.ts';
import { createKeyedDigest, hexDigestOf } from './digest.ts';

/** Name of a VM's folder. */
export type VmKey = Branded<'VmKey'>;

/** A VM's id where that is a safe name, else a hash. */
export const plainNameOf = (vmId: string): VmKey =>
  (/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(vmId) ? vmId : `h-${hexDigestOf(vmId).slice(0, 32)}`) as VmKey;

/** In an encrypted repository: `nameKey` of 32 bytes. */
export function keyedNames(nameKey: Uint8Array): (vmId: string) => VmKey {
  const digestOf = createKeyedDigest(nameKey);
  return (vmId) => digestOf(Buffer.from(`vm\n${vmId}`)).toString('hex', 0, 16) as VmKey;
}
