/** Absolute path of the work tree. */
export const rootFolder: string;
/** `$XDG_CACHE_HOME/tidemark` or `~/.cache/tidemark`. */
export function cacheFolder(): string;
export function compileCacheFolder(): string;
export function toolCacheFolder(): string;
/** Absolute path of an executable, or null when it is nowhere. */
export function locateTool(name: string): string | null;
export function locateMariadbShare(): string | null;
export type GuestFiles = { folder: string; kernel: string; modules: string; initrd: string };
/** Where kernel and initrd of the test guest belong; whether they exist is the caller's to check. */
export function guestFiles(): GuestFiles;
