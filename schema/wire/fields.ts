/** Reading and writing the fields of a head by name, so that every refusal names what was wrong. */
import { isUtf8 } from 'node:buffer';
import { refuse } from './frame.ts';

export class FieldReader {
  readonly #bytes: Buffer;
  readonly #frame: string;
  #at = 0;

  constructor(frame: string, bytes: Buffer) {
    this.#frame = frame;
    this.#bytes = bytes;
  }

  #take(field: string, length: number): Buffer {
    const left = this.#bytes.length - this.#at;
    if (length > left) throw refuse(`${this.#frame} ${field}`, `cut after ${left} bytes`, `${length} bytes`);
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  #within(field: string, value: number, least: number, most: number): number {
    if (value < least || value > most) throw refuse(`${this.#frame} ${field}`, value, `${least} to ${most}`);
    return value;
  }

  u8(field: string, least = 0, most = 0xff): number {
    return this.#within(field, this.#take(field, 1).readUInt8(), least, most);
  }

  u16(field: string, least = 0, most = 0xffff): number {
    return this.#within(field, this.#take(field, 2).readUInt16LE(), least, most);
  }

  u32(field: string, least = 0, most = 0xffff_ffff): number {
    return this.#within(field, this.#take(field, 4).readUInt32LE(), least, most);
  }

  u64(field: string, most = Number.MAX_SAFE_INTEGER): number {
    return this.#within(field, Number(this.#take(field, 8).readBigUInt64LE()), 0, most);
  }

  bytes(field: string, length: number): Buffer {
    return this.#take(field, length);
  }

  zeros(field: string, length: number): void {
    if (this.#take(field, length).some((byte) => byte !== 0))
      throw refuse(`${this.#frame} ${field}`, 'not zero', 'zero');
  }

  text(field: string, least: number, most: number): string {
    const bytes = this.#take(field, this.u16(`${field} length`, least, most));
    const text = bytes.toString('utf8');
    // What is no UTF-8 would be replaced, and name something else.
    if (!isUtf8(bytes)) throw refuse(`${this.#frame} ${field}`, JSON.stringify(text), 'UTF-8');
    return text;
  }

  matching(field: string, text: string, pattern: RegExp): string {
    if (!pattern.test(text)) throw refuse(`${this.#frame} ${field}`, JSON.stringify(text), String(pattern));
    return text;
  }

  one<T extends string>(field: string, names: readonly (T | null)[]): T {
    const code = this.u8(field);
    const name = names[code];
    if (!name)
      throw refuse(
        `${this.#frame} ${field}`,
        code,
        names
          .map((n, i) => (n ? `${i} (${n})` : ''))
          .filter(Boolean)
          .join(', '),
      );
    return name;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  end(): void {
    if (this.left > 0)
      throw refuse(`${this.#frame} head length`, this.#bytes.length, `${this.#at}, the sum of its fields`);
  }
}

export class FieldWriter {
  readonly #parts: Uint8Array[] = [];

  u8(value: number): this {
    this.#parts.push(Buffer.of(value));
    return this;
  }

  u16(value: number): this {
    const part = Buffer.alloc(2);
    part.writeUInt16LE(value);
    return this.bytes(part);
  }

  u32(value: number): this {
    const part = Buffer.alloc(4);
    part.writeUInt32LE(value);
    return this.bytes(part);
  }

  u64(value: number): this {
    const part = Buffer.alloc(8);
    part.writeBigUInt64LE(BigInt(value));
    return this.bytes(part);
  }

  bytes(part: Uint8Array): this {
    this.#parts.push(part);
    return this;
  }

  zeros(length: number): this {
    return this.bytes(Buffer.alloc(length));
  }

  text(value: string): this {
    const part = Buffer.from(value);
    return this.u16(part.length).bytes(part);
  }

  done(): Buffer {
    return Buffer.concat(this.#parts);
  }
}
