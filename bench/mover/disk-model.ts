/** Disks that take no room: their content is made when it is read. */
export type DiskModel = {
  sizeBytes: number;
  /** `full`: data everywhere. `sparse`: one mebibyte of data in sixteen, the rest unallocated. */
  kind: 'full' | 'sparse';
};
