/**
 * The formats that the first bytes of a file tell, as `qemu-img info` would find them. Only ever a reason to refuse: the
 * guest writes what a raw disk begins with, so a file is never opened as what is found in it.
 *
 * LUKS is not among them: a guest that encrypts a whole disk begins it so, and it is a good raw disk.
 */
import { open } from 'node:fs/promises';

/** Enough for all of them. */
const HEAD_BYTES = 512;

/** `name`: as qemu-img has it. */
const formats: readonly { name: string; at: number; magic: readonly Buffer[] }[] = [
  { name: 'qcow', at: 0, magic: [Buffer.from('QFI\u00fb\0\0\0\u0001', 'latin1')] },
  { name: 'qcow2', at: 0, magic: [Buffer.from('QFI\u00fb', 'latin1')] },
  { name: 'qed', at: 0, magic: [Buffer.from('QED\0', 'latin1')] },
  { name: 'vmdk', at: 0, magic: ['KDMV', 'COWD', '# Disk DescriptorFile'].map((text) => Buffer.from(text)) },
  { name: 'vhdx', at: 0, magic: [Buffer.from('vhdxfile')] },
  { name: 'vpc', at: 0, magic: [Buffer.from('conectix')] },
  { name: 'vdi', at: 64, magic: [Buffer.from([0x7f, 0x10, 0xda, 0xbe])] },
  { name: 'parallels', at: 0, magic: ['WithoutFreeSpace', 'WithouFreSpacExt'].map((text) => Buffer.from(text)) },
];

/** Null: it begins like none. Errors of the system as they are. */
export async function formatFoundIn(file: string): Promise<string | null> {
  const handle = await open(file, 'r');
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    const head = buffer.subarray(0, bytesRead);
    const begins = (at: number, magic: Buffer): boolean => head.subarray(at, at + magic.length).equals(magic);
    return formats.find(({ at, magic }) => magic.some((one) => begins(at, one)))?.name ?? null;
  } finally {
    await handle.close();
  }
}

/** What is to be done with an image of this format that was called raw. */
export const wayOutOf = (found: string): string =>
  found === 'qcow2'
    ? 'say `format: qcow2` for it'
    : `convert it (\`qemu-img convert -f ${found} -O qcow2\`) and name what comes of it with \`format: qcow2\``;
