/**
 * Seeded damage to other libraries' files: to any bytes, to the JSON of configurations and of safetensors' headers, and to
 * pickles in archives whose checksums are right again. Each must be refused with a `CheckpointError`, or read as a whole
 * model; of what archives hold under their checksums no number may change.
 *
 * @module
 */

import { parameterShapes } from "../../../nn/activations/mod.ts";
import { AssertionError } from "@std/assert";
import { CheckpointError } from "../../../io/errors.ts";
import type { FileSet } from "../../../io/file_set.ts";
import { readModel, recogniseFiles } from "../../../io/checkpoints/recognised_files.ts";
import type { ParsedCheckpoint } from "../../../io/model.ts";
import { bytesSource } from "../../../io/source.ts";
import { readZip } from "../../../io/zip.ts";
import { Random } from "../../support/random.ts";
import { damageBytes, damageOpcodes, damageTokens, pick } from "../damage.ts";
import type { FuzzReport } from "../fuzz.ts";
import { countingSource } from "../counting_source.ts";
import { bitsOf } from "../models.ts";
import { joined, rawZip, utf8 } from "../raw_zip.ts";
import { type FORMATS, type GoldenFiles, goldenFiles, memoryFiles } from "./golden_files.ts";

const ACCEPT = ["normalised-rows", "rescaled-codes"] as const;
/** What reading a damaged file of a few kilobytes may take from its sources, and what may come out. */
const MAX_BYTES = 2 ** 26;

interface Subject extends GoldenFiles {
  /** As it reads undamaged. */
  readonly summary: string;
  readonly bits: string;
}

/** What was done to a file. */
interface Damage {
  readonly file: string;
  readonly bytes: Uint8Array;
  /** Whether checksums still cover the numbers that they covered. */
  readonly keepsChecksums: boolean;
}

/**
 * Damages so many files of a format and reads them.
 *
 * @throws {AssertionError} naming the case, where a file is read as what it must not be, or the reader throws anything but
 * a `CheckpointError`.
 */
export async function fuzzFormat(format: (typeof FORMATS)[number], seed: number, count: number): Promise<FuzzReport> {
  const subjects: Subject[] = [];
  for (const golden of goldenFiles()) {
    if (golden.format !== format || golden.refused !== undefined) continue;
    const model = await readFiles(memoryFiles(golden.files, golden.main));
    subjects.push({ ...golden, summary: summaryOf(model), bits: JSON.stringify(bitsOf(model.parameters)) });
  }
  const report: FuzzReport = { refused: 0, unharmed: 0, changed: 0 };
  for (let i = 0; i < count; i++) {
    const random = new Random(seed * 1_000_003 + i);
    const subject = pick(random, subjects);
    const damage = await damageOne(random, subject);
    try {
      report[await judge(subject, damage)]++;
    } catch (cause) {
      const what = `${format}/${subject.name}, damage to ${damage.file}, case ${i} of seed ${seed}`;
      throw new AssertionError(`${what}: ${cause instanceof Error ? cause.stack : cause}`, { cause });
    }
  }
  return report;
}

async function readFiles(files: FileSet): Promise<ParsedCheckpoint> {
  return (await readModel(await recogniseFiles(files), { accept: ACCEPT })).model;
}

async function judge(subject: Subject, { file, bytes, keepsChecksums }: Damage): Promise<keyof FuzzReport> {
  const counters = [...subject.files].map(([name, whole]) =>
    [name, countingSource(name === file ? bytes : whole)] as const
  );
  const counted = new Map(counters);
  const files = {
    ...memoryFiles(subject.files, subject.main),
    find: (path: string) => Promise.resolve(counted.get(path) ?? null),
  };
  let model: ParsedCheckpoint;
  try {
    model = await readFiles(files);
  } catch (error) {
    if (error instanceof CheckpointError) return "refused";
    throw error;
  } finally {
    const bytesRead = counters.reduce((sum, [, counter]) => sum + counter.bytesRead, 0);
    demand(bytesRead <= MAX_BYTES, `${bytesRead} bytes were read`);
  }
  let size = 0;
  for (const [name, shape] of parameterShapes(model.cfg)) {
    const data: Float32Array = model.parameters[name]!;
    size += data.byteLength;
    demand(data.length === shape.reduce((product, size) => product * size, 1), `${name} is of another size`);
    demand(data.every(Number.isFinite), `${name} is not finite`);
  }
  demand(size <= MAX_BYTES, `a model of ${size} bytes`);
  const sameBits = JSON.stringify(bitsOf(model.parameters)) === subject.bits;
  if (sameBits && summaryOf(model) === subject.summary) return "unharmed";
  demand(!keepsChecksums, "the model changed under the archive's checksums");
  return "changed";
}

function summaryOf({ cfg, input }: ParsedCheckpoint): string {
  return JSON.stringify([cfg, input.mean && [...input.mean], input.scale]);
}

function demand(condition: boolean, message: string): void {
  if (!condition) throw new AssertionError(message);
}

async function damageOne(random: Random, { files }: GoldenFiles): Promise<Damage> {
  const file = pick(random, [...files.keys()]);
  const whole = files.get(file)!;
  const isArchive = whole[0] === 0x50 && whole[1] === 0x4b;
  if (random.unit() < 0.5) {
    // Headers stand at the start, directories at the end, and most of a file is numbers.
    const [from, to] = pick(random, [[0, Math.min(700, whole.length)], [0, whole.length], [
      whole.length * 0.7,
      whole.length,
    ]]);
    const bytes = damageBytes(random, whole, Math.floor(from), to);
    return { file, bytes, keepsChecksums: isArchive };
  }
  if (isArchive) return { file, bytes: await damageRecords(random, whole), keepsChecksums: false };
  if (file.endsWith(".json")) {
    const bytes = utf8(damageTokens(random, new TextDecoder().decode(whole)));
    return { file, bytes, keepsChecksums: false };
  }
  return { file, bytes: damageSafetensorsHeader(random, whole), keepsChecksums: false };
}

/** The pickle, or the start of an array with its header, in an archive that is right again. */
async function damageRecords(random: Random, archive: Uint8Array): Promise<Uint8Array> {
  const members = [...await readZip(bytesSource(archive), { allowDeflated: true })];
  const damaged = pick(random, members.filter(([name]) => /\.npy$|data\.pkl$/.test(name)))[0];
  const records = await Promise.all(members.map(async ([name, member]) => {
    const bytes = (await member.read()).slice();
    if (name !== damaged) return { name, bytes };
    return {
      name,
      bytes: name.endsWith(".npy")
        ? damageBytes(random, bytes, 0, Math.min(128, bytes.length))
        : damageOpcodes(random, bytes),
    };
  }));
  return rawZip(records);
}

/** The header with its length set right. */
function damageSafetensorsHeader(random: Random, whole: Uint8Array): Uint8Array {
  const end = 8 + Number(new DataView(whole.buffer, whole.byteOffset).getBigUint64(0, true));
  const header = utf8(damageTokens(random, new TextDecoder().decode(whole.subarray(8, end))));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(header.length), true);
  return joined([length, header, whole.subarray(end)]);
}
