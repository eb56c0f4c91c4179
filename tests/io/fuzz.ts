/**
 * Seeded damage to checkpoints of every schema, at three depths: any bytes of the file, the header's JSON (signed again
 * where it had a checksum), and the pickle (in an archive whose checksums are right again, so that the reader gets there);
 * and to the files of every other format.
 *
 * `deno run -A tests/io/fuzz.ts [SEED] [COUNT] [ONLY]`, by default 0 and 10,000 at each depth and of each format
 *
 * @module
 */

import { AssertionError } from "@std/assert";
import * as zlib from "node:zlib";
import { CheckpointError } from "../../io/errors.ts";
import { parseCheckpoint } from "../../io/checkpoints/saev_reader.ts";
import { formatCheckpoint } from "../../io/checkpoints/saev_writer.ts";
import type { ParsedCheckpoint } from "../../io/model.ts";
import { bytesSource } from "../../io/source.ts";
import { readZip } from "../../io/zip.ts";
import { Random } from "../support/random.ts";
import { damageBytes, damageOpcodes, damageTokens } from "./damage.ts";
import { fuzzFormat } from "./checkpoints/fuzz.ts";
import { FORMATS } from "./checkpoints/golden_files.ts";
import { bitsOf, goldenCheckpoint, randomModel } from "./models.ts";
import { joined, rawZip, utf8 } from "./raw_zip.ts";

/** Where damage is done. */
export type Depth = "file" | "header" | "pickle";

/** How many files were refused, read as what they were, and read as something else that nothing protects. */
export interface FuzzReport {
  refused: number;
  unharmed: number;
  changed: number;
}

interface Subject {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly header: string;
  readonly body: Uint8Array;
  readonly model: ParsedCheckpoint;
  /** Bits of the parameters. */
  readonly bits: string;
  /** Every number that its storages hold. */
  readonly numbers: ReadonlySet<number>;
  readonly isSigned: boolean;
}

const GOLDENS = [
  "preschema_relu.pt",
  "schema1_relu.pt",
  "schema1a_top_k.pt",
  "schema1b_top_k.pt",
  "schema2_top_k.pt",
  "schema3_top_k.pt",
  "schema4_top_k_kind.pt",
  "schema5_relu.pt",
  "schema5_top_k.pt",
  "schema5_batch_top_k.pt",
  "schema5_float16.pt",
  "schema5_shared_storage.pt",
];

async function subjects(): Promise<Subject[]> {
  const small = { d_model: 2, d_sae: 4 } as const;
  const relu = randomModel({ ...small, activation: { key: "relu" }, subtract_b_dec: true });
  const batch = randomModel({ ...small, activation: { key: "batch-top-k" } });
  const input = { mean: Float32Array.of(1, -2), scale: 0.3 };
  return await Promise.all([
    ...GOLDENS.map((file) => subject(file, goldenCheckpoint(file).bytes)),
    subject("our schema 1", formatCheckpoint(relu.cfg, relu.parameters, undefined, { schema: 1 })),
    subject("our schema 5", formatCheckpoint(batch.cfg, batch.parameters)),
    subject("our own schema", formatCheckpoint(batch.cfg, batch.parameters, input, { schema: "saev_nn" })),
  ]);
}

async function subject(name: string, bytes: Uint8Array): Promise<Subject> {
  const end = bytes.indexOf(10);
  const header = new TextDecoder().decode(bytes.subarray(0, end));
  const model = await parseCheckpoint(bytesSource(bytes));
  return {
    name,
    bytes,
    header,
    body: bytes.subarray(end + 1),
    model,
    bits: JSON.stringify(bitsOf(model.parameters)),
    numbers: new Set(Object.values(model.parameters).flatMap((data: Float32Array) => [...data])),
    isSigned: header.includes('"crc32"'),
  };
}

/**
 * Damages so many files at one depth and reads them.
 *
 * @throws {AssertionError} naming the case, where a file is read as what it must not be, or the reader throws anything but
 * a `CheckpointError`.
 */
export async function fuzz(depth: Depth, seed: number, count: number): Promise<FuzzReport> {
  const files = await subjects();
  const report: FuzzReport = { refused: 0, unharmed: 0, changed: 0 };
  for (let i = 0; i < count; i++) {
    const random = new Random(seed * 1_000_003 + i);
    const file = files[random.integer(0, files.length - 1)]!;
    const bytes = await DAMAGE[depth](random, file);
    try {
      report[await judge(depth, file, bytes)]++;
    } catch (cause) {
      throw new AssertionError(`${file.name}, damage to the ${depth}, case ${i} of seed ${seed}: ${cause}`, { cause });
    }
  }
  return report;
}

const DAMAGE: Readonly<Record<Depth, (random: Random, file: Subject) => Uint8Array | Promise<Uint8Array>>> = {
  file: damageFile,
  header: damageHeader,
  pickle: damagePickle,
};

// --------------------------------------------------------------------------------------------------------- judging

async function judge(depth: Depth, file: Subject, bytes: Uint8Array): Promise<keyof FuzzReport> {
  let model: ParsedCheckpoint;
  try {
    model = await parseCheckpoint(bytesSource(bytes));
  } catch (error) {
    if (error instanceof CheckpointError) return "refused";
    throw error;
  }
  demand(isWhole(model), "the model is not what its configuration says");
  const sameParameters = JSON.stringify(bitsOf(model.parameters)) === file.bits;
  const sameRest =
    JSON.stringify([model.cfg, scalingOf(model)]) === JSON.stringify([file.model.cfg, scalingOf(file.model)]);
  if (sameParameters && sameRest) return "unharmed";
  switch (depth) {
    case "file": {
      // In a header that has no checksum nothing sees another digit, or that a field with a default is gone.
      const header = new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(10)));
      const { activation, subtract_b_dec } = file.model.cfg;
      demand(sameParameters, "a parameter changed under the archive's checksums");
      demand(!file.isSigned, "the header changed under its checksum");
      demand(isWithin(withoutDigits(header), withoutDigits(file.header)), `the header says something new: ${header}`);
      demand(model.cfg.activation.key === activation.key, "the activation changed");
      demand(model.cfg.subtract_b_dec === subtract_b_dec, "the encoder formula changed");
      break;
    }
    case "header":
      demand(sameParameters, "a header changed the parameters");
      break;
    case "pickle":
      demand(sameRest, "a pickle changed the configuration");
      for (const data of Object.values(model.parameters) as Float32Array[]) {
        demand(data.every((value) => file.numbers.has(value)), "a number that is nowhere in the file");
      }
  }
  return "changed";
}

function demand(condition: boolean, message: string): void {
  if (!condition) throw new AssertionError(message);
}

function isWhole({ cfg, parameters }: ParsedCheckpoint): boolean {
  const { d_model, d_sae } = cfg;
  const { W_enc, b_enc, W_dec, b_dec, threshold } = parameters;
  const lengths = [W_enc.length, b_enc.length, W_dec.length, b_dec.length, threshold?.length];
  const expected = [
    d_model * d_sae,
    d_sae,
    d_sae * d_model,
    d_model,
    cfg.activation.key === "batch-top-k" ? 1 : undefined,
  ];
  const isFinite = Object.values(parameters).every((data: Float32Array) => data.every(Number.isFinite));
  return isFinite && lengths.every((length, i) => length === expected[i]);
}

function scalingOf({ input: { mean, scale } }: ParsedCheckpoint): unknown {
  return [mean && [...mean], scale];
}

function withoutDigits(header: string): string {
  return header.replace(/"(?:commit|lib)": ?"[^"]*"/g, "").replace(/-?[0-9][0-9.eE+-]*/g, "0").replace(/\s/g, "");
}

/** Whether some characters of `whole`, in their order, are `part`. */
function isWithin(part: string, whole: string): boolean {
  let at = 0;
  for (const character of whole) if (character === part[at]) at++;
  return at === part.length;
}

// -------------------------------------------------------------------------------------------------------- damaging

function damageFile(random: Random, { bytes, header }: Subject): Uint8Array {
  // The parts are of very different lengths, and most of a file is padding and numbers.
  const starts = [0, header.length, Math.floor(bytes.length * 0.75), 0];
  const ends = [header.length, header.length + 700, bytes.length, bytes.length];
  const part = random.integer(0, starts.length - 1);
  return damageBytes(random, bytes, starts[part]!, ends[part]!);
}

async function damagePickle(random: Random, { header, body }: Subject): Promise<Uint8Array> {
  const records = await Promise.all(
    [...await readZip(bytesSource(body))].map(async ([name, member]) => {
      const bytes = await member.read();
      return { name, bytes: name.endsWith("/data.pkl") ? damageOpcodes(random, bytes) : bytes };
    }),
  );
  return joined([utf8(`${header}\n`), rawZip(records)]);
}

function damageHeader(random: Random, { header, body, isSigned }: Subject): Uint8Array {
  const changed = damageTokens(random, header);
  return joined([utf8(`${isSigned ? signed(changed) : changed}\n`), body]);
}

/** Puts the right checksum on a header that was changed, where it still has one. */
function signed(header: string): string {
  const at = header.lastIndexOf('"crc32"');
  if (at < 0) return header;
  const checksum = zlib.crc32(header.slice(0, at)).toString(16).padStart(8, "0");
  return header.slice(0, at) + header.slice(at).replace(/[0-9a-f]{8}/, checksum);
}

if (import.meta.main) {
  const [seed = "0", count = "10000", only] = Deno.args;
  const report = (what: string, { refused, unharmed, changed }: FuzzReport): void =>
    console.log(`${what}: ${refused} refused, ${unharmed} read as they were, ${changed} read as the damage says`);
  for (const depth of ["file", "header", "pickle"] as const) {
    if (only === undefined || only === "saev") report(`saev, ${depth}`, await fuzz(depth, Number(seed), Number(count)));
  }
  for (const format of FORMATS) {
    if (only === undefined || only === format) report(format, await fuzzFormat(format, Number(seed), Number(count)));
  }
}
