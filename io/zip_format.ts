/**
 * What readers and writers of zip archives share: signatures, sizes, flags.
 *
 * Format: PKWARE's APPNOTE 6.3.
 *
 * @module
 */

/** The facts about a record in an archive's headers. */
export interface ZipEntry {
  /** Its full name. */
  readonly name: string;
  /** Length of its content. */
  readonly size: number;
  /** Checksum of its content. */
  readonly crc32: number;
}

/** The place of the directory in an archive. */
export interface Directory {
  /** Its first byte. */
  readonly offset: number;
  /** Its length in bytes. */
  readonly size: number;
  /** Number of records that it lists. */
  readonly count: number;
}

/** Signature of the header before a record. */
export const LOCAL_HEADER = 0x04034b50;
/** Signature of the descriptor after a record whose header gives no sizes. */
export const DATA_DESCRIPTOR = 0x08074b50;
/** Signature of a record's entry in the directory. */
export const CENTRAL_HEADER = 0x02014b50;
/** Signature of zip64's end record. */
export const ZIP64_END = 0x06064b50;
/** Signature of the locator of zip64's end record. */
export const ZIP64_LOCATOR = 0x07064b50;
/** Signature of the end record. */
export const END = 0x06054b50;
/** Bytes of the header before a record, without name and extra fields. */
export const LOCAL_HEADER_SIZE = 30;
/** Bytes of a record's entry in the directory, without name and extra fields. */
export const CENTRAL_HEADER_SIZE = 46;
/** Bytes of zip64's end record. */
export const ZIP64_END_SIZE = 56;
/** Bytes of the locator. */
export const ZIP64_LOCATOR_SIZE = 20;
/** Bytes of the end record, without comment. */
export const END_SIZE = 22;
/** Flag: sizes and checksum follow the record. */
export const SIZES_FOLLOW = 0x0008;
/** Flag: the name is UTF-8. */
export const UTF8_NAMES = 0x0800;
/** Tag of the extra field with 64-bit sizes. */
export const ZIP64_EXTRA = 1;
/** The value of a 16-bit field whose number is in the zip64 record. */
export const MAX_16 = 0xffff;
/** The value of a 32-bit field whose number is in a zip64 field. */
export const MAX_32 = 0xffffffff;
