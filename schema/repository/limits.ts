/** Sizes and limits of format version 1 (FORMAT.md). Bytes unless said otherwise. */
import { WINDOW_BYTES } from '../domain/extents.ts';

/** Of repository.json and of everything in the repository. Readers of later versions keep reading it. */
export const FORMAT_VERSION = 1;
export const RECORD_HEADER_BYTES = 128;
export const PACK_HEADER_BYTES = 64;
export const FOOTER_ENTRY_BYTES = 136;
export const FOOTER_TRAILER_BYTES = 64;
export const LEDGER_HEADER_BYTES = 128;
export const MAX_RAW_BYTES = 4 * 1024 * 1024;
/** What encryption adds to a payload: the tag of AES-256-GCM. */
export const TAG_BYTES = 16;
/** Of a record, sealed document or sealed frame: with it, each has a key of its own. */
export const SALT_BYTES = 24;
export const KEY_BYTES = 32;
export const MAX_PACK_RECORDS = 65_536;
export const MAX_PACK_BYTES = 0xffff_ffff;
export const DATA_PACK_TARGET_BYTES = 128 * 1024 * 1024;
export const PAGE_PACK_TARGET_BYTES = 16 * 1024 * 1024;
export const DIGEST_BYTES = 32;
export const PAGE_ENTRIES = 256;
export const PAGE_BYTES = PAGE_ENTRIES * DIGEST_BYTES;
export const MAX_HEIGHT = 5;
export const MAX_LEDGER_BODY_BYTES = 9216;
export const MAX_LEDGER_FRAME_BYTES = LEDGER_HEADER_BYTES + MAX_LEDGER_BODY_BYTES;
export const SEALED_FRAME_HEADER_BYTES = 64;
/** Of a manifest, head or tombstone: room for 1024 disks with long names and reasons. */
export const MAX_DOCUMENT_BYTES = 4 * 1024 * 1024;
/** Of a document in its envelope: base64 and four short lines. */
export const MAX_SEALED_DOCUMENT_BYTES = Math.ceil((MAX_DOCUMENT_BYTES + TAG_BYTES) / 3) * 4 + 256;
export const MAX_REPOSITORY_FILE_BYTES = 64 * 1024;
/** Of a line of `damaged` or `verified`, its line feed included. */
export const MAX_LINE_BYTES = 4096;
/** Of repository.json, levels. */
export const MAX_NESTING = 16;
export const MAX_DISKS = 1024;
export const MAX_DISK_BYTES = 2 ** 50;
export const MAX_WINDOW_BLOCKS = 256;
/** Of a disk. */
export const MAX_WINDOWS = MAX_DISK_BYTES / WINDOW_BYTES;
export const MAX_KEY_SLOTS = 16;
export const MAX_DATA_KEYS = 256;
export const MAX_KEY_FILE_BYTES = 64 * 1024;
export const MAX_PASSPHRASE_BYTES = 1024;
/** A hundred years: beyond it somebody mistyped. */
export const MAX_LOCK_DAYS = 36_525;
