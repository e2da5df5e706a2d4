/** Sizes and limits of format version 0 (FORMAT.md). Bytes unless said otherwise. */
import { WINDOW_BYTES } from '../domain/extents.ts';

export const FORMAT_VERSION = 0;
export const RECORD_HEADER_BYTES = 128;
export const PACK_HEADER_BYTES = 64;
export const FOOTER_ENTRY_BYTES = 136;
export const FOOTER_TRAILER_BYTES = 64;
export const LEDGER_HEADER_BYTES = 128;
export const MAX_RAW_BYTES = 4 * 1024 * 1024;
/** What a cipher's tag may add to a payload. */
export const MAX_STORED_GROWTH_BYTES = 16;
export const MAX_PACK_RECORDS = 65_536;
export const MAX_PACK_BYTES = 0xffff_ffff;
export const DATA_PACK_TARGET_BYTES = 128 * 1024 * 1024;
export const PAGE_PACK_TARGET_BYTES = 16 * 1024 * 1024;
export const DIGEST_BYTES = 32;
export const PAGE_ENTRIES = 256;
export const PAGE_BYTES = PAGE_ENTRIES * DIGEST_BYTES;
export const MAX_HEIGHT = 5;
export const MAX_LEDGER_BODY_BYTES = 9216;
/** Of a manifest, head or tombstone: room for 1024 disks with long names and reasons. */
export const MAX_DOCUMENT_BYTES = 4 * 1024 * 1024;
export const MAX_REPOSITORY_FILE_BYTES = 64 * 1024;
/** Of repository.json, levels. */
export const MAX_NESTING = 16;
export const MAX_DISKS = 1024;
export const MAX_DISK_BYTES = 2 ** 50;
export const MAX_WINDOW_BLOCKS = 256;
/** Of a disk. */
export const MAX_WINDOWS = MAX_DISK_BYTES / WINDOW_BYTES;
