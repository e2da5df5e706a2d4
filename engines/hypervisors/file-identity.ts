/** What tells the file of an image from another one put in its place. */
import type { BigIntStats } from 'node:fs';

/** Stays over reboots (no device number) and over growth; a file put in this one's place has another one. */
export const fileIdentity = (format: string, path: string, file: BigIntStats): string =>
  file.isBlockDevice() ? `${format}:${path}` : `${format}:${file.ino}:${file.birthtimeNs}`;
