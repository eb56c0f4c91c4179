/**
 * Writes the part of Python's pickle protocol 2 that state dicts use, byte for byte like Python's own pickler.
 *
 * @module
 */

import { Op } from "./pickle_opcodes.ts";

/**
 * Writes the opcodes that Python's own pickler would choose. Each `put` takes the next memo number; a named value that
 * was put is fetched instead of written twice.
 */
export class PickleWriter {
  readonly #bytes: number[] = [Op.PROTO, 2];
  readonly #memo = new Map<string, number>();
  #nPuts = 0;

  /** `module.name`, written once. */
  global(module: string, name: string): this {
    return this.#shared(`global ${module}.${name}`, () => {
      this.#bytes.push(Op.GLOBAL, ...new TextEncoder().encode(`${module}\n${name}\n`));
    });
  }

  /** A string that is one object in Python (a literal), written once. */
  literal(text: string): this {
    return this.#shared(`literal ${text}`, () => this.#unicode(text));
  }

  /** A string that is an object of its own. */
  string(text: string): this {
    this.#unicode(text);
    return this.#put();
  }

  /** An integer. */
  integer(value: number): this {
    if (value >= 0 && value < 2 ** 8) this.#bytes.push(Op.BININT1, value);
    else if (value >= 0 && value < 2 ** 16) this.#bytes.push(Op.BININT2, ...littleEndian(value, 2));
    else if (value >= -(2 ** 31) && value < 2 ** 31) this.#bytes.push(Op.BININT, ...littleEndian(value, 4));
    else this.#bytes.push(Op.LONG1, 8, ...littleEndian(value, 8));
    return this;
  }

  /** `False` */
  false(): this {
    this.#bytes.push(Op.NEWFALSE);
    return this;
  }

  /** A tuple of the integers. */
  integers(values: readonly number[]): this {
    if (values.length === 0) {
      this.#bytes.push(Op.EMPTY_TUPLE);
      return this;
    }
    if (values.length > 3) this.#bytes.push(Op.MARK);
    for (const value of values) this.integer(value);
    this.#bytes.push(values.length > 3 ? Op.TUPLE : Op.TUPLE1 + values.length - 1);
    return this.#put();
  }

  /** A tuple of what `write` writes, four or more values. */
  tuple(write: () => void): this {
    this.#bytes.push(Op.MARK);
    write();
    this.#bytes.push(Op.TUPLE);
    return this.#put();
  }

  /** A new empty dict. */
  emptyDict(): this {
    this.#bytes.push(Op.EMPTY_DICT);
    return this.#put();
  }

  /** A new empty `collections.OrderedDict`. */
  emptyOrderedDict(): this {
    this.global("collections", "OrderedDict");
    this.#bytes.push(Op.EMPTY_TUPLE);
    return this.reduce();
  }

  /** Sets the item whose key and value `write` writes. */
  item(write: () => void): this {
    write();
    this.#bytes.push(Op.SETITEM);
    return this;
  }

  /** Sets the items whose keys and values `write` writes, two items or more. */
  items(write: () => void): this {
    this.#bytes.push(Op.MARK);
    write();
    this.#bytes.push(Op.SETITEMS);
    return this;
  }

  /** Calls the callable below with the tuple on top. */
  reduce(): this {
    this.#bytes.push(Op.REDUCE);
    return this.#put();
  }

  /** Replaces the tuple on top by the object that it identifies. */
  persistent(): this {
    this.#bytes.push(Op.BINPERSID);
    return this;
  }

  /** Makes the dict on top the attributes of the object below. */
  build(): this {
    this.#bytes.push(Op.BUILD);
    return this;
  }

  /** The finished pickle. */
  done(): Uint8Array {
    return Uint8Array.from([...this.#bytes, Op.STOP]);
  }

  #shared(key: string, write: () => void): this {
    const index = this.#memo.get(key);
    if (index === undefined) {
      this.#memo.set(key, this.#nPuts);
      write();
      return this.#put();
    }
    if (index < 256) this.#bytes.push(Op.BINGET, index);
    else this.#bytes.push(Op.LONG_BINGET, ...littleEndian(index, 4));
    return this;
  }

  #unicode(text: string): void {
    const encoded = new TextEncoder().encode(text);
    this.#bytes.push(Op.BINUNICODE, ...littleEndian(encoded.length, 4), ...encoded);
  }

  #put(): this {
    const index = this.#nPuts++;
    if (index < 256) this.#bytes.push(Op.BINPUT, index);
    else this.#bytes.push(Op.LONG_BINPUT, ...littleEndian(index, 4));
    return this;
  }
}

function littleEndian(value: number, length: number): number[] {
  const bits = BigInt.asUintN(8 * length, BigInt(value));
  return Array.from({ length }, (_, i) => Number((bits >> BigInt(8 * i)) & 0xffn));
}
