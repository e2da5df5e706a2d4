/** One DDL statement: MySQL commits at each, so a migration of two could stop half done. */
export type Migration = { name: string; statement: string };
