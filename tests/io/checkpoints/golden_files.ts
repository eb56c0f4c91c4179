/**
 * The files that other libraries wrote, and what they compute from them; made by the `make_*.py` of `tests/interop`.
 *
 * @module
 */

import { type FileSet, namesIn } from "../../../io/file_set.ts";
import type { Concession } from "../../../io/checkpoints/format.ts";
import type { FormatName } from "../../../io/checkpoints/formats.ts";
import { bytesSource } from "../../../io/source.ts";

/** The formats that have goldens here. */
export const FORMATS = [
  "saelens",
  "dictionary_learning",
  "sparsify",
  "openai",
  "gemma_scope",
  "vit_prisma",
  "llamascopium",
  "llama_scope",
] as const satisfies readonly FormatName[];

/** What a library computes from a file, or what a refusal of it must name. */
export interface GoldenFiles {
  readonly format: (typeof FORMATS)[number];
  readonly name: string;
  /** Files by name; one file is its own case. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** The file to point at; `null` for the folder. */
  readonly main: string | null;
  /** [N, d_model] */
  readonly x: Float32Array;
  /** [N, d_sae] */
  readonly codes?: Float32Array;
  /** [N, d_model] */
  readonly x_hat?: Float32Array;
  /** What must be accepted, and is refused otherwise. */
  readonly accept?: readonly Concession[];
  readonly refused?: string;
}

interface GoldenArray {
  readonly data: readonly number[];
}

interface GoldenJson {
  readonly x: GoldenArray;
  readonly cases: Readonly<
    Record<string, { codes?: GoldenArray; x_hat?: GoldenArray; accept?: Concession[]; refused?: string }>
  >;
}

const ROOT = new URL("../../goldens/formats/", import.meta.url);

/** All cases of all formats. */
export function goldenFiles(): GoldenFiles[] {
  return FORMATS.flatMap((format) => {
    const { x, cases }: GoldenJson = JSON.parse(Deno.readTextFileSync(new URL(`${format}.json`, ROOT)));
    return Object.entries(cases).map(([name, { codes, x_hat, ...more }]) => {
      const url = new URL(`${format}/${name}`, ROOT);
      const isFolder = Deno.statSync(url).isDirectory;
      const names = isFolder ? filesIn(`${url}/`) : [];
      const files = isFolder
        ? new Map(names.map((file) => [file, Deno.readFileSync(new URL(`${format}/${name}/${file}`, ROOT))]))
        : new Map([[name, Deno.readFileSync(url)]]);
      return {
        format,
        name,
        files,
        main: isFolder ? null : name,
        x: Float32Array.from(x.data),
        ...codes && { codes: Float32Array.from(codes.data) },
        ...x_hat && { x_hat: Float32Array.from(x_hat.data) },
        ...more,
      };
    });
  });
}

let cases: GoldenFiles[] | undefined;

/** The case `format/name`. */
export function goldenCase(key: string): GoldenFiles {
  cases ??= goldenFiles();
  return cases.find(({ format, name }) => `${format}/${name}` === key)!;
}

/** The case with a field of its configuration set, or left out where the value is `undefined`. */
export function withField(golden: GoldenFiles, field: string, value: unknown): GoldenFiles {
  const name = [...golden.files.keys()].find((name) => name.endsWith(".json"))!;
  const config = { ...JSON.parse(new TextDecoder().decode(golden.files.get(name))), [field]: value };
  return { ...golden, files: new Map([...golden.files, [name, new TextEncoder().encode(JSON.stringify(config))]]) };
}

/** The files under a folder, by their paths in it. */
function filesIn(folder: string): string[] {
  return [...Deno.readDirSync(new URL(folder))].flatMap(({ name, isDirectory }) =>
    isDirectory ? filesIn(`${folder}${name}/`).map((inner) => `${name}/${inner}`) : [name]
  );
}

/** Where a case's files lie. */
export function goldenUrl({ format, name }: GoldenFiles): URL {
  return new URL(`${format}/${name}`, ROOT);
}

/** Files in memory as a set. */
export function memoryFiles(files: ReadonlyMap<string, Uint8Array>, main: string | null): FileSet {
  return {
    name: "the files",
    main,
    list: () => Promise.resolve(namesIn(files.keys())),
    find: (path) => {
      const bytes = files.get(path);
      return Promise.resolve(bytes === undefined ? null : bytesSource(bytes, path));
    },
  };
}
