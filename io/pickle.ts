/**
 * Reads the part of Python's pickle protocol 2 that state dicts, and configurations beside them, use.
 *
 * Nothing in the pickle is executed. A name without a given meaning is refused, the meanings are functions of ours, and
 * an object of a class becomes a record of its content. Bytes and opcodes are limited, and with them memory.
 *
 * @module
 */

import { CheckpointError, quote } from "./errors.ts";
import type { JsonValue } from "./json.ts";
import { Op } from "./pickle_opcodes.ts";

/** A dict or an OrderedDict. */
export class PickledDict {
  /** Its items, in order. */
  readonly items: Map<string, PickledValue> = new Map();
  /** The content of the object's own `__dict__` (state dicts keep `_metadata` there). */
  attributes: PickledDict | null = null;
}

/** A tuple. */
export type PickledTuple = readonly PickledValue[];

/** A list. */
export class PickledList {
  /** Its items, in order. */
  readonly items: PickledValue[] = [];
}

/** Something made by the {@link Vocabulary}; opaque to the reader. */
export abstract class PickledObject {
  /** Its name in messages. */
  abstract readonly what: string;
}

/** The content of an object of some class. The class itself is neither known nor used. */
export class PickledRecord extends PickledObject {
  /** `module.name` of the class. */
  readonly className: string;
  /** The arguments it was created with. */
  readonly args: PickledTuple;
  /** The content of its `__dict__`. */
  attributes: PickledDict | null = null;

  /** An object created with `args`. */
  constructor(className: string, args: PickledTuple) {
    super();
    this.className = className;
    this.args = args;
  }

  override get what(): string {
    return `an object of ${quote(this.className)}`;
  }
}

/** A value in a pickle. */
export type PickledValue = null | boolean | number | string | PickledTuple | PickledList | PickledDict | PickledObject;

/** A configuration has about a hundred values, including nested ones. */
const MAX_JSON_VALUES = 2 ** 12;
const MAX_JSON_DEPTH = 16;

/**
 * A value as JSON: dicts as objects, tuples as lists, and anything else by its name in messages.
 *
 * @throws {CheckpointError} for too many values: in a pickle a list can contain itself, and nested lists that each
 * contain the next one twice double the count for every two bytes.
 */
export function pickledJson(value: PickledValue): JsonValue {
  let nValues = 0;
  const convert = (value: PickledValue, depth: number): JsonValue => {
    const fail = (what: string): never => {
      throw new CheckpointError(`reading a pickled configuration: found more than ${what}`);
    };
    if (depth > MAX_JSON_DEPTH) return fail(`${MAX_JSON_DEPTH} levels of nesting`);
    if (++nValues > MAX_JSON_VALUES) return fail(`${MAX_JSON_VALUES} values`);
    const inner = (value: PickledValue): JsonValue => convert(value, depth + 1);
    if (value instanceof PickledDict) return new Map([...value.items].map(([key, item]) => [key, inner(item)]));
    if (value instanceof PickledList) return value.items.map(inner);
    if (value instanceof PickledObject) return value.what;
    return Array.isArray(value) ? value.map(inner) : value as JsonValue;
  };
  return convert(value, 0);
}

/** The names that a pickle may use, and their meanings. */
export interface Vocabulary {
  /** Callables by `module.name`, for `REDUCE`. */
  readonly callables: ReadonlyMap<string, (args: PickledTuple) => PickledValue>;
  /** Names that may only be mentioned, by `module.name`. */
  readonly constants: ReadonlyMap<string, PickledObject>;
  /** Classes, by `module.name`, whose objects become {@link PickledRecord}s; none if left out. */
  readonly records?: RegExp;
  /** The meaning of a persistent id. */
  persistent(id: PickledValue): PickledValue;
}

/** An allowed name on the stack. */
class PickledGlobal extends PickledObject {
  override readonly what = "a name";
  readonly name: string;

  constructor(name: string) {
    super();
    this.name = name;
  }
}

/** A tensor takes about forty opcodes and 120 bytes; an opcode takes at most about 300 bytes of memory. */
const MAX_OPCODES = 2 ** 16;

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Pickles longer than this are refused. */
export const MAX_PICKLE_BYTES = 2 ** 22;

/** @throws {CheckpointError} for anything other than one pickled value in the vocabulary. */
export function unpickle(bytes: Uint8Array, vocabulary: Vocabulary): PickledValue {
  if (bytes.length > MAX_PICKLE_BYTES) {
    throw new CheckpointError(`reading the pickle: it has ${bytes.length} bytes; expected at most ${MAX_PICKLE_BYTES}`);
  }
  return new Unpickler(bytes, vocabulary).run();
}

class Unpickler {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #vocabulary: Vocabulary;
  readonly #stack: PickledValue[] = [];
  /** Heights of the stack at the marks still open; nothing below the last one may be taken. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, PickledValue>();
  /** Start of the current opcode, for messages. */
  #opcodeAt = 0;
  #at = 0;

  constructor(bytes: Uint8Array, vocabulary: Vocabulary) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#vocabulary = vocabulary;
  }

  run(): PickledValue {
    if (this.#byte() !== Op.PROTO || this.#byte() !== 2) this.#fail("expected protocol 2");
    for (let nOpcodes = 0;; nOpcodes++) {
      this.#opcodeAt = this.#at;
      if (nOpcodes > MAX_OPCODES) this.#fail(`more than ${MAX_OPCODES} opcodes`);
      const opcode = this.#byte();
      if (opcode === Op.STOP) break;
      this.#step(opcode);
    }
    const result = this.#pop();
    if (this.#stack.length + this.#marks.length > 0) this.#fail("values are left over at the end");
    if (this.#at !== this.#bytes.length) this.#fail("bytes are left over after the end");
    return result;
  }

  #step(opcode: number): void {
    switch (opcode) {
      case Op.MARK:
        this.#marks.push(this.#stack.length);
        break;
      case Op.EMPTY_TUPLE:
        this.#stack.push([]);
        break;
      case Op.TUPLE:
        this.#stack.push(this.#popToMark());
        break;
      case Op.TUPLE1:
      case Op.TUPLE2:
      case Op.TUPLE3:
        this.#stack.push(this.#popMany(opcode - Op.TUPLE1 + 1));
        break;
      case Op.EMPTY_LIST:
        this.#stack.push(new PickledList());
        break;
      case Op.APPEND:
        this.#append(this.#popMany(1));
        break;
      case Op.APPENDS:
        this.#append(this.#popToMark());
        break;
      case Op.EMPTY_DICT:
        this.#stack.push(new PickledDict());
        break;
      case Op.SETITEM:
        this.#setItems(this.#popMany(2));
        break;
      case Op.SETITEMS:
        this.#setItems(this.#popToMark());
        break;
      case Op.NONE:
        this.#stack.push(null);
        break;
      case Op.NEWTRUE:
      case Op.NEWFALSE:
        this.#stack.push(opcode === Op.NEWTRUE);
        break;
      case Op.BINFLOAT:
        this.#stack.push(this.#view.getFloat64(this.#take(8)));
        break;
      case Op.BININT:
        this.#stack.push(this.#view.getInt32(this.#take(4), true));
        break;
      case Op.BININT1:
        this.#stack.push(this.#byte());
        break;
      case Op.BININT2:
        this.#stack.push(this.#view.getUint16(this.#take(2), true));
        break;
      case Op.LONG1:
        this.#stack.push(this.#long(this.#byte()));
        break;
      case Op.BINUNICODE:
        this.#stack.push(this.#text(this.#view.getUint32(this.#take(4), true)));
        break;
      case Op.GLOBAL:
        this.#stack.push(this.#global(`${this.#line()}.${this.#line()}`));
        break;
      case Op.REDUCE:
        this.#reduce();
        break;
      case Op.NEWOBJ:
        this.#newObject();
        break;
      case Op.BINPERSID:
        this.#stack.push(this.#vocabulary.persistent(this.#pop()));
        break;
      case Op.BUILD:
        this.#build();
        break;
      case Op.BINPUT:
        this.#memo.set(this.#byte(), this.#top());
        break;
      case Op.LONG_BINPUT:
        this.#memo.set(this.#view.getUint32(this.#take(4), true), this.#top());
        break;
      case Op.BINGET:
        this.#remember(this.#byte());
        break;
      case Op.LONG_BINGET:
        this.#remember(this.#view.getUint32(this.#take(4), true));
        break;
      default:
        this.#fail(`the opcode 0x${opcode.toString(16).padStart(2, "0")} never occurs in state dicts`);
    }
  }

  #global(name: string): PickledObject {
    const constant = this.#vocabulary.constants.get(name);
    if (constant !== undefined) return constant;
    if (this.#vocabulary.callables.has(name) || this.#isRecord(name)) return new PickledGlobal(name);
    return this.#fail(`found the name ${quote(name)}, which no state dict needs; it is not loaded`);
  }

  #reduce(): void {
    const args = this.#pop();
    const callable = this.#pop();
    if (!(callable instanceof PickledGlobal) || !isTuple(args)) {
      return this.#fail("REDUCE without a callable and a tuple");
    }
    const call = this.#vocabulary.callables.get(callable.name);
    this.#stack.push(call === undefined ? new PickledRecord(callable.name, args) : call(args));
  }

  #newObject(): void {
    const args = this.#pop();
    const cls = this.#pop();
    if (!(cls instanceof PickledGlobal) || !this.#isRecord(cls.name) || !isTuple(args)) {
      return this.#fail("NEWOBJ without a class and a tuple");
    }
    this.#stack.push(new PickledRecord(cls.name, args));
  }

  #isRecord(name: string): boolean {
    const { records } = this.#vocabulary;
    return records !== undefined && name.search(records) >= 0;
  }

  #build(): void {
    const state = this.#pop();
    const target = this.#top();
    const hasAttributes = target instanceof PickledDict || target instanceof PickledRecord;
    if (!(hasAttributes && state instanceof PickledDict && target.attributes === null)) {
      return this.#fail("BUILD of something other than the attributes of an object");
    }
    target.attributes = state;
  }

  #setItems(items: PickledTuple): void {
    const dict = this.#top();
    if (!(dict instanceof PickledDict)) return this.#fail("items set on something other than a dict");
    if (items.length % 2 !== 0) this.#fail("a key without a value");
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i]!;
      if (typeof key !== "string") return this.#fail("a dict's key is not a string");
      if (dict.items.has(key)) this.#fail(`the key ${quote(key)} appears twice in one dict`);
      dict.items.set(key, items[i + 1]!);
    }
  }

  #append(items: PickledTuple): void {
    const list = this.#top();
    if (!(list instanceof PickledList)) return this.#fail("items appended to something other than a list");
    for (const item of items) list.items.push(item);
  }

  #remember(index: number): void {
    const value = this.#memo.get(index);
    if (value === undefined) return this.#fail(`nothing was stored under ${index}`);
    this.#stack.push(value);
  }

  #top(): PickledValue {
    const value = this.#stack.length > (this.#marks.at(-1) ?? 0) ? this.#stack.at(-1) : undefined;
    return value === undefined ? this.#fail("the stack is empty") : value;
  }

  #pop(): PickledValue {
    const value = this.#top();
    this.#stack.pop();
    return value;
  }

  #popMany(count: number): PickledValue[] {
    if (this.#stack.length - (this.#marks.at(-1) ?? 0) < count) this.#fail("the stack is empty");
    return this.#stack.splice(-count);
  }

  #popToMark(): PickledValue[] {
    const mark = this.#marks.pop();
    return mark === undefined ? this.#fail("no mark is open") : this.#stack.splice(mark);
  }

  #long(length: number): number {
    const start = this.#take(length);
    if (length > 8) this.#fail(`an integer of ${length} bytes`);
    let value = 0n;
    for (let i = 0; i < length; i++) value |= BigInt(this.#bytes[start + i]!) << BigInt(8 * i);
    const number = Number(BigInt.asIntN(8 * length, value));
    return Number.isSafeInteger(number) ? number : this.#fail(`the integer ${number} is beyond 2^53`);
  }

  #text(length: number): string {
    const start = this.#take(length);
    return this.#decode(this.#bytes.subarray(start, start + length));
  }

  /** A newline-terminated argument. Names are short, so the search is bounded. */
  #line(): string {
    const rest = this.#bytes.subarray(this.#at, this.#at + 256);
    const length = rest.indexOf(0x0a);
    if (length < 0) return this.#fail("a name that is cut off");
    this.#at += length + 1;
    return this.#decode(rest.subarray(0, length));
  }

  #decode(bytes: Uint8Array): string {
    try {
      return UTF8.decode(bytes);
    } catch {
      return this.#fail("a string that is not UTF-8 text");
    }
  }

  #byte(): number {
    return this.#bytes[this.#take(1)]!;
  }

  /** The start of the next `length` bytes, which must exist. */
  #take(length: number): number {
    const start = this.#at;
    if (length > this.#bytes.length - start) {
      this.#fail(`a value of ${length} bytes where ${this.#bytes.length - start} are left`);
    }
    this.#at += length;
    return start;
  }

  #fail(what: string): never {
    throw new CheckpointError(`reading the pickle, byte ${this.#opcodeAt}: ${what}`);
  }
}

function isTuple(value: PickledValue): value is PickledTuple {
  return Array.isArray(value);
}
