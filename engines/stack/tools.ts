/** The programs a stack runs. They are located by whoever starts it and handed in: the engine searches nothing. */
export type StackTools = {
  /** Absolute paths. */
  temporal: string;
  mariadbd: string;
  /** Folder with MariaDB's SQL files, messages and character sets. */
  mariadbShare: string;
  /** Node 24 for the workers. */
  node: string;
};
