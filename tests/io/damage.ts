/**
 * Seeded damage: to bytes anywhere, to the tokens of JSON, to the opcodes of a pickle.
 *
 * @module
 */

import type { Random } from "../support/random.ts";
import { joined } from "./raw_zip.ts";

/** One of them. */
export function pick<T>(random: Random, from: readonly T[]): T {
  return from[random.integer(0, from.length - 1)]!;
}

const OPCODES = [
  "cos\nsystem\n",
  "c__builtin__\neval\n",
  "cbuiltins\ngetattr\n",
  "ctorch\nload\n",
  "ctorch\nLongStorage\n",
  "ccollections\nOrderedDict\n)R",
  "(((((",
  ")R",
  "tR",
  "Q",
  "b",
  "0",
  "2",
  "h\x00",
  "q\x00",
  "j\xff\xff\xff\x7f",
  "r\xff\xff\xff\xff",
  "X\xff\xff\xff\xff",
  "J\xff\xff\xff\xff",
  "\x8a\xff",
  "\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80",
  "\x85",
  "\x86",
  "\x87",
  "}",
  "u",
  "s",
  ".",
];

/** A pickle with other bytes, or with opcodes put into it. */
export function damageOpcodes(random: Random, pickle: Uint8Array): Uint8Array {
  if (random.unit() < 0.6) return damageBytes(random, pickle, 0, pickle.length);
  const at = random.integer(2, pickle.length);
  const inserted = Uint8Array.from(pick(random, OPCODES), (character) => character.charCodeAt(0));
  const skipped = pick(random, [0, 0, 1, inserted.length]);
  return joined([pickle.subarray(0, at), inserted, pickle.subarray(at + skipped)]);
}

/** One to four changes within a part. */
export function damageBytes(random: Random, bytes: Uint8Array, start: number, end: number): Uint8Array {
  let damaged = bytes.slice();
  for (let n = pick(random, [1, 1, 1, 2, 4]); n > 0; n--) {
    const most = Math.min(end, damaged.length) - 1;
    if (most < start) break;
    damaged = pick(random, CHANGES)(random, damaged, random.integer(start, most));
  }
  return damaged;
}

type Change = (random: Random, bytes: Uint8Array, at: number) => Uint8Array<ArrayBuffer>;

/** Puts bytes in place of so many. */
function replaced(bytes: Uint8Array, at: number, count: number, by: Uint8Array): Uint8Array<ArrayBuffer> {
  const rest = bytes.subarray(Math.min(at + count, bytes.length));
  const result = new Uint8Array(at + by.length + rest.length);
  result.set(bytes.subarray(0, at));
  result.set(by, at);
  result.set(rest, at + by.length);
  return result;
}

function randomBytes(random: Random, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random.integer(0, 255));
}

const CHANGES: readonly Change[] = [
  (random, bytes, at) => replaced(bytes, at, 1, Uint8Array.of(bytes[at]! ^ (1 << random.integer(0, 7)))),
  (random, bytes, at) => replaced(bytes, at, 1, randomBytes(random, 1)),
  (random, bytes, at) => {
    const length = random.integer(1, 16);
    return replaced(bytes, at, length, randomBytes(random, length));
  },
  (random, bytes, at) => {
    const width = pick(random, [1, 2, 4, 8]);
    return replaced(bytes, at, width, pick(random, [0, 1, 0x7f, 0x80, 0xff].map((b) => new Uint8Array(width).fill(b))));
  },
  (random, bytes, at) => replaced(bytes, at, random.integer(1, 40), new Uint8Array()),
  (random, bytes, at) => replaced(bytes, at, 0, randomBytes(random, random.integer(1, 40))),
  (random, bytes, at) => {
    const from = random.integer(0, bytes.length - 1);
    return replaced(bytes, at, pick(random, [0, 8, 64]), bytes.slice(from, from + random.integer(1, 64)));
  },
  (_random, bytes, at) => bytes.slice(0, at),
];

const TOKENS = [
  ...["0", "-1", "1", "2", "8", "32", "0.5", "1e999", "-1e-999", "1e308", "9007199254740993", "NaN", "Infinity"],
  ...["null", "true", "false", "[]", "{}", '""', '"x"', "[1]", '{"cls":"Relu","params":{}}', "[".repeat(40)],
  ...['"__proto__"', '"constructor"', '"toString"', '"key"', '"kind"', '"saev_nn"', '"schema"', '"cls"', '"params"'],
  ...['"topk"', '"relu"', '"jumprelu"', '"gated"', '"layer_norm"', '"none"', '"dataset-wise"', '"sae"', '"transcoder"'],
  ...['"Relu"', '"TopK"', '"BatchTopK"', '"AbsBatchTopK"', '"SparseAutoencoderConfig"', '"AuxK"', '"NoSparsity"'],
  ...['"d_model"', '"d_vit"', '"d_sae"', '"exp_factor"', '"coeff"', '"threshold"', '"\\u0000"', '"\ud800"', "'a'"],
];

/** JSON with one to three of its tokens changed, gone or twice there. */
export function damageTokens(random: Random, text: string): string {
  let tokens: string[] = text.match(/"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|[a-z]+|\s+|./g) ?? [];
  for (let n = pick(random, [1, 1, 2, 3]); n > 0 && tokens.length > 0; n--) {
    const at = random.integer(0, tokens.length - 1);
    const kind = random.integer(0, 3);
    if (kind === 0) tokens = tokens.toSpliced(at, 1, pick(random, TOKENS));
    else if (kind === 1) tokens = tokens.toSpliced(at, 1, pick(random, tokens));
    else if (kind === 2) tokens = tokens.toSpliced(at, random.integer(1, 8));
    else tokens = tokens.toSpliced(at, 0, ...tokens.slice(at - random.integer(0, 8), at));
  }
  return tokens.join("");
}
