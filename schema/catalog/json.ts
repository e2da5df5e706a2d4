/** Values as columns hold them. JSON columns: text on both servers (see connection.ts). */
export const toJson = (value: unknown): string => JSON.stringify(value);
/** The caller names the shape: only this software writes these columns. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters
export const fromJson = <T>(text: string): T => JSON.parse(text) as T;

export const isoOrNull = (date: Date | null): string | null => (date === null ? null : date.toISOString());

/** For `like`: everything that begins with this text, whatever is in it. */
export const prefixPattern = (text: string): string => `${text.replaceAll(/[\\%_]/g, '\\$&')}%`;
