/**
 * The layers, executed: who may import whom, where `Deno.*` may stand, and which words arithmetic has never heard of.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { ACTIVATIONS } from "../nn/activations/mod.ts";
import { AUXILIARIES, SPARSITIES } from "../nn/loss_terms.ts";

const ROOT = new URL("../", import.meta.url);
const LIBRARY = ["kernels", "nn", "objectives", "io", "data", "train", "eval", "runner", "cli"];

/** One import as the module graph has it; `target` is a path below the root, or a package specifier. */
interface Import {
  readonly from: string;
  readonly target: string;
  readonly isTypeOnly: boolean;
}

/** What the files of one layer may import. The first layer that matches a file counts. */
interface Layer {
  readonly files: RegExp;
  readonly may: readonly RegExp[];
  readonly mayTypesOf?: readonly RegExp[];
}

const PACKAGE = /^(?:npm|jsr|node|https?|data):|^@/;
const CHECKED_OPTIONS = /^kernels\/engine\/options\.ts$/;
const IO_PURE = /^io\/(?!checkpoints\/|mod\.ts$)/;
const PUBLIC = [/^mod\.ts$/, /^(?:data|train|eval|io|kernels|runner)\/mod\.ts$/, /^examples\//, PACKAGE];
const TEST_CODE = /^(?:tests|bench)\//;

const LAYERS: readonly Layer[] = [
  { files: /^nn\/arrays\.ts$/, may: [] },
  { files: /^nn\/fields\.ts$/, may: [/^kernels\/engine\/errors\.ts$/] },
  { files: /^nn\/loss_terms\.ts$/, may: [/^nn\/fields\.ts$/] },
  { files: /^nn\/rows\.ts$/, may: [/^kernels\/engine\/errors\.ts$/], mayTypesOf: [/^kernels\/engine\/tensor\.ts$/] },
  { files: /^kernels\//, may: [/^kernels\//] },
  { files: /^nn\//, may: [/^kernels\//, /^nn\//] },
  { files: /^objectives\//, may: [/^kernels\//, /^nn\//, /^objectives\//] },
  {
    files: /^io\/(?:disk|files|copies)\.ts$/,
    may: [IO_PURE, CHECKED_OPTIONS],
    mayTypesOf: [/^nn\/(?:arrays|config)\.ts$/, /^npm:node:fs(?:\/promises)?$/],
  },
  {
    files: IO_PURE,
    may: [IO_PURE, /^nn\/arrays\.ts$/, CHECKED_OPTIONS],
    mayTypesOf: [/^nn\/config\.ts$/],
  },
  {
    files: /^io\//,
    may: [/^io\//, /^nn\//, CHECKED_OPTIONS],
    mayTypesOf: [/^kernels\/engine\/(?:device|tensor)\.ts$/],
  },
  {
    files: /^data\//,
    may: [/^data\//, IO_PURE, /^kernels\/(?:random|engine\/(?:errors|options))\.ts$/, /^nn\/rows\.ts$/],
    mayTypesOf: [/^nn\/(?:arrays|config)\.ts$/],
  },
  { files: /^eval\//, may: [/^(?:eval|nn|kernels|data|io)\//] },
  { files: /^train\//, may: [/^(?:train|objectives|nn|kernels|data|io|eval)\//] },
  {
    files: /^runner\//,
    may: [/^runner\/(?!pages\/source\/)/, /^(?:train|objectives|nn|kernels|data|io|eval)\//, /^(?:npm:)?node:/],
  },
  { files: /^mod\.ts$/, may: [/^(?:kernels|nn|objectives|io)\//] },
  { files: /^cli\//, may: [/^deno\.json$/, /^cli\//, ...PUBLIC] },
  { files: /^examples\//, may: PUBLIC },
];

/** Files that may name `Deno`. */
const DENO_FILES = /^io\/(?:disk|copies)\.ts$|^(?:runner|cli|examples)\//;

/** `Deno` used as a value or a type, rather than mentioned in a message. */
const DENO_USE = /\bDeno\s*\??\.\s*\w|\btypeof Deno\b|["']Deno["']/;

/** Words of the model. The package's own name may stand in examples. */
const MODEL_WORDS = /(?<!@)\bsaes?\b|latent|autoencoder|prefix|[Ww]_(?:enc|dec)|b_(?:enc|dec)|d_(?:sae|model)/i;

/** Files that may ask which activation a model has. All others ask for what it can. */
const ACTIVATION_FILES = /^nn\/activations\/|^nn\/config\.ts$|^io\/checkpoints\/|^cli\//;

/** Files that may ask which penalty or auxiliary loss an activation has. All others ask for what it can. */
const LOSS_FILES =
  /^nn\/(?:activations\/|loss_terms\.ts$)|^objectives\/(?:sparsity|terms)\.ts$|^io\/checkpoints\/|^cli\//;

/** Every import that its file's layer does not allow, as a sentence. */
function layerViolations(imports: readonly Import[]): string[] {
  return imports.flatMap(({ from, target, isTypeOnly }) => {
    const layer = LAYERS.find(({ files }) => files.test(from));
    if (layer === undefined) return [`${from} belongs to no layer`];
    const allowed = isTypeOnly ? [...layer.may, ...layer.mayTypesOf ?? []] : layer.may;
    return allowed.some((pattern) => pattern.test(target)) ? [] : [`${from} imports ${target}`];
  });
}

/** The text with comments blanked out. Strings that look like comments are blanked too, which hides nothing here. */
function withoutComments(source: string): string {
  return source.replace(/\/\*[\s\S]*?\*\/|(?<!:)\/\/.*$/gm, (comment) => comment.replace(/[^\n]/g, " "));
}

/** Lines that use `Deno`, in a file that may not. */
function denoViolations(path: string, source: string): string[] {
  if (DENO_FILES.test(path)) return [];
  return numberedLines(path, withoutComments(source)).filter((line) => DENO_USE.test(line));
}

/** Lines of arithmetic that speak of the model, comments included. */
function wordViolations(path: string, source: string): string[] {
  return path.startsWith("kernels/") ? numberedLines(path, source).filter((line) => MODEL_WORDS.test(line)) : [];
}

/** Lines that ask for an activation, a penalty or an auxiliary loss by its key. To write one into a configuration is allowed. */
function keyViolations(path: string, source: string): string[] {
  const keys = [
    ...ACTIVATION_FILES.test(path) ? [] : Object.keys(ACTIVATIONS),
    ...LOSS_FILES.test(path) ? [] : [...Object.keys(SPARSITIES), ...Object.keys(AUXILIARIES)],
  ];
  if (keys.length === 0) return [];
  const named = new RegExp(`(?<!\\b(?:key|activation): )["'](?:${keys.join("|")})["']`);
  return numberedLines(path, withoutComments(source)).filter((line) => named.test(line));
}

/** Where a model's work is recorded that the GPU may leave out: no other file of the model decides on the way. */
const CONDITIONAL_FILES = /^kernels\/|^objectives\/step\.ts$/;

/** Lines that record such work elsewhere. */
function conditionViolations(path: string, source: string): string[] {
  if (CONDITIONAL_FILES.test(path)) return [];
  return numberedLines(path, withoutComments(source)).filter((line) => /\.onlyIf\(/.test(line));
}

/** The circles among imports, each as the files on its way. */
function circles(imports: readonly Import[]): string[] {
  const targets = Map.groupBy(imports, ({ from }) => from);
  const found = new Set<string>();
  const done = new Set<string>();
  const visit = (file: string, way: readonly string[]): void => {
    if (way.includes(file)) {
      found.add([...way.slice(way.indexOf(file)), file].join(" → "));
    } else if (!done.has(file)) {
      for (const { target } of targets.get(file) ?? []) visit(target, [...way, file]);
      done.add(file);
    }
  };
  for (const file of targets.keys()) visit(file, []);
  return [...found];
}

/** The lines of a file as `path:number: text`. */
function numberedLines(path: string, source: string): string[] {
  return source.split("\n").map((line, i) => `${path}:${i + 1}: ${line.trim()}`);
}

/** The TypeScript files below `folder`, as paths below the root. */
async function* walk(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(new URL(folder, ROOT))) {
    if (isDirectory) yield* walk(`${folder}/${name}`);
    else if (/\.tsx?$/.test(name)) yield `${folder}/${name}`;
  }
}

/** What pages are built from: published as what they are built into. */
const PAGE_SOURCES = /^runner\/pages\/source\//;

/** The published code: the library, its entry, the command line and the examples. */
async function publishedFiles(): Promise<string[]> {
  const files = ["mod.ts"];
  for (const folder of [...LIBRARY, "examples"]) files.push(...await Array.fromAsync(walk(folder)));
  return files.filter((file) => !PAGE_SOURCES.test(file)).sort();
}

/** The imports of these files, from Deno's own module graph. */
async function readImports(files: readonly string[]): Promise<Import[]> {
  const entry = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(entry, files.map((file) => `import ${JSON.stringify(new URL(file, ROOT))};\n`).join(""));
    const args = ["info", "--json", "--no-lock", "--config", new URL("deno.json", ROOT).pathname, entry];
    const { stdout } = await new Deno.Command(Deno.execPath(), { args, stderr: "inherit" }).output();
    const { modules } = JSON.parse(new TextDecoder().decode(stdout)) as GraphJson;
    const below = (url: string): string => url.startsWith(ROOT.href) ? url.slice(ROOT.href.length) : url;
    return modules.flatMap(({ specifier, dependencies = [] }) =>
      dependencies.map((dependency): Import => ({
        from: below(specifier),
        // A package is named as the source names it, not by where this repository's stand-in lies.
        target: dependency.specifier.startsWith(".") || dependency.specifier.startsWith("file:")
          ? below((dependency.code ?? dependency.type)?.specifier ?? dependency.specifier)
          : dependency.specifier.startsWith("@")
          ? dependency.specifier
          : `npm:${dependency.specifier}`,
        isTypeOnly: dependency.code === undefined,
      }))
    ).filter(({ from }) => files.includes(from));
  } finally {
    await Deno.remove(entry);
  }
}

/** What `deno info --json` prints, as far as it is read here. */
interface GraphJson {
  readonly modules: readonly {
    readonly specifier: string;
    readonly dependencies?: readonly {
      readonly specifier: string;
      readonly code?: { readonly specifier: string };
      readonly type?: { readonly specifier: string };
    }[];
  }[];
}

Deno.test("architecture: every import keeps the layers", async () => {
  const files = await publishedFiles();
  const imports = await readImports(files);
  assert(imports.length > files.length, `only ${imports.length} imports found in ${files.length} files`);
  assertEquals(layerViolations(imports), []);
});

Deno.test("architecture: no file imports itself by way of others, not even a type", async () => {
  const imports = await readImports(await publishedFiles());
  assertEquals(circles(imports), []);
});

Deno.test("architecture: code asks what an activation can, not which it is", async () => {
  const found: string[] = [];
  for (const path of await publishedFiles()) {
    found.push(...keyViolations(path, await Deno.readTextFile(new URL(path, ROOT))));
  }
  assertEquals(found, []);
});

Deno.test("architecture: only the step decides what the GPU leaves out", async () => {
  const found: string[] = [];
  for (const path of await publishedFiles()) {
    found.push(...conditionViolations(path, await Deno.readTextFile(new URL(path, ROOT))));
  }
  assertEquals(found, []);
});

Deno.test("architecture: what CONTRIBUTING says to touch is there", async () => {
  const text = await Deno.readTextFile(new URL("CONTRIBUTING.md", ROOT));
  const recipes = text.split(/^## /m).filter((section) => section.startsWith("To add"));
  assertEquals(recipes.map((section) => section.split("\n")[0]), [
    "To add an activation",
    "To add a loss term",
    "To add a configuration field",
    "To add a checkpoint format",
    "To add a command",
    "To add a kernel",
  ]);
  const missing: string[] = [];
  for (const [, path] of recipes.join("").matchAll(/`([a-z_]+\/[\w/.<>*-]*)`/g)) {
    // Of what is still to be written, its folder is there.
    const known = path!.replace(/[^/]*[<*].*$/, "");
    await Deno.stat(new URL(known, ROOT)).catch(() => missing.push(path!));
  }
  assertEquals(missing, []);
});

Deno.test("architecture: tests/types holds the type of every name that users import", async () => {
  const read = (path: string) => Deno.readTextFile(new URL(path, ROOT));
  const missing: string[] = [];
  for (const entry of ["mod", "train", "data", "eval", "io"]) {
    const file = entry === "mod" ? "mod.ts" : `${entry}/mod.ts`;
    const names = exportedNames(await read(file));
    assert(names.length > 5, file);
    const held = await read(`tests/types/${entry}_test.ts`);
    missing.push(...names.filter((name) => !new RegExp(`\\.${name}\\b`).test(held)).map((name) => `${file}: ${name}`));
  }
  assertEquals(missing, []);
});

function exportedNames(text: string): string[] {
  const lists = [...text.matchAll(/^export (?:type )?\{([^}]*)\}/gm)].map(([, list]) => list!);
  return lists.flatMap((list) => [...list.matchAll(/(\w+)\s*(?:,|$)/g)].map(([, name]) => name!));
}

Deno.test("architecture: nothing published imports tests or benches", async () => {
  const imports = await readImports(await publishedFiles());
  assertEquals(imports.filter(({ target }) => TEST_CODE.test(target)), []);
});

Deno.test("architecture: Deno is named only where files and terminals are", async () => {
  const found: string[] = [];
  for (const path of await publishedFiles()) {
    found.push(...denoViolations(path, await Deno.readTextFile(new URL(path, ROOT))));
  }
  assertEquals(found, []);
});

Deno.test("architecture: kernels have never heard of an autoencoder", async () => {
  const found: string[] = [];
  for await (const path of walk("kernels")) {
    found.push(...wordViolations(path, await Deno.readTextFile(new URL(path, ROOT))));
  }
  assertEquals(found, []);
});

Deno.test("architecture: every file says first what it is", async () => {
  const files = [...await publishedFiles()];
  for (const folder of ["tests", "bench", "runner/pages/source"]) files.push(...await Array.fromAsync(walk(folder)));
  const found: string[] = [];
  for (const path of files) {
    const text = await Deno.readTextFile(new URL(path, ROOT));
    if (!/^(?:#!.*\n)?\/\*\*/.test(text)) found.push(path);
  }
  assertEquals(found, []);
});

Deno.test("architecture: the rules catch what they are for", () => {
  const cases: [string, string, boolean, boolean][] = [
    ["nn/arrays.ts", "nn/config.ts", true, false],
    ["nn/loss_terms.ts", "nn/fields.ts", false, true],
    ["nn/loss_terms.ts", "nn/activations/mod.ts", true, false],
    ["kernels/matmul.ts", "kernels/engine/tensor.ts", false, true],
    ["kernels/matmul.ts", "nn/config.ts", true, false],
    ["nn/encode.ts", "kernels/matmul.ts", false, true],
    ["nn/encode.ts", "objectives/vanilla.ts", true, false],
    ["nn/encode.ts", "io/checkpoints/checkpoint.ts", true, false],
    ["objectives/vanilla.ts", "nn/config.ts", true, true],
    ["objectives/vanilla.ts", "train/mod.ts", true, false],
    ["io/zip.ts", "io/crc32.ts", false, true],
    ["io/zip.ts", "io/checkpoints/checkpoint.ts", false, false],
    ["io/files.ts", "npm:node:fs/promises", true, true],
    ["io/files.ts", "npm:node:fs/promises", false, false],
    ["io/zip.ts", "npm:node:fs/promises", true, false],
    ["io/torch_file.ts", "nn/config.ts", true, true],
    ["io/torch_file.ts", "nn/config.ts", false, false],
    ["io/model.ts", "nn/arrays.ts", false, true],
    ["io/checkpoints/checkpoint.ts", "nn/sparse_autoencoder.ts", false, true],
    ["io/checkpoints/checkpoint.ts", "kernels/engine/tensor.ts", true, true],
    ["io/checkpoints/checkpoint.ts", "kernels/engine/tensor.ts", false, false],
    ["io/checkpoints/saev.ts", "train/mod.ts", true, false],
    ["train/mod.ts", "io/checkpoints/checkpoint.ts", false, true],
    ["train/mod.ts", "runner/mod.ts", false, false],
    ["eval/evaluate.ts", "train/mod.ts", true, false],
    ["data/rows.ts", "nn/config.ts", true, true],
    ["data/rows.ts", "nn/rows.ts", false, true],
    ["nn/rows.ts", "nn/encode.ts", true, false],
    ["data/rows.ts", "nn/state.ts", true, false],
    ["runner/run.ts", "train/train.ts", false, true],
    ["runner/run.ts", "cli/mod.ts", false, false],
    ["runner/report.ts", "runner/pages/page.ts", false, true],
    ["runner/report.ts", "runner/pages/source/report.tsx", false, false],
    ["train/mod.ts", "npm:fast-check", false, false],
    ["kernels/random.ts", "node:crypto", false, false],
    ["mod.ts", "examples/demo/demo.ts", false, false],
    ["cli/train.ts", "@std/cli/parse-args", false, true],
    ["cli/train.ts", "nn/optim/adam.ts", false, false],
    ["examples/demo/demo.ts", "kernels/mod.ts", false, true],
    ["examples/demo/demo.ts", "kernels/matmul.ts", false, false],
    ["elsewhere/file.ts", "nn/optim/adam.ts", false, false],
  ];
  for (const [from, target, isTypeOnly, isAllowed] of cases) {
    assertEquals(layerViolations([{ from, target, isTypeOnly }]).length === 0, isAllowed, `${from} → ${target}`);
  }
  assertEquals(denoViolations("nn/x.ts", "/** Deno */\nconst a = `Deno 2`; // Deno.cwd()\nDeno.cwd();"), [
    "nn/x.ts:3: Deno.cwd();",
  ]);
  for (const asked of [`if (key === "top-k") {`, `case "relu":`, `"jump-relu": 1,`, `const s = 'batch-top-k';`]) {
    assertEquals(keyViolations("nn/x.ts", asked).length, 1, asked);
    assertEquals(keyViolations("nn/activations/x.ts", asked), []);
  }
  assertEquals(keyViolations("nn/x.ts", `make({ activation: { key: "top-k" } }); // "relu"`), []);
  for (const asked of [`if (aux.key === "auxk") f();`, `if (sparsity.key === "target-l0-sparsity") f();`]) {
    assertEquals(keyViolations("train/x.ts", asked).length, 1, asked);
    assertEquals(keyViolations("objectives/terms.ts", asked), []);
  }
  assertEquals(conditionViolations("objectives/aux_k.ts", "commands.onlyIf(count, () => 1);").length, 1);
  assertEquals(conditionViolations("objectives/step.ts", "commands.onlyIf(count, () => 1);"), []);
  const edge = (from: string, target: string): Import => ({ from, target, isTypeOnly: true });
  assertEquals(circles([edge("a", "b"), edge("b", "c"), edge("c", "d")]), []);
  assertEquals(circles([edge("a", "b"), edge("b", "c"), edge("c", "b")]), ["b → c → b"]);
  assertEquals(denoViolations("io/disk.ts", "Deno.cwd();"), []);
  assertEquals(denoViolations("io/files.ts", "Deno.cwd();").length, 1);
  for (const word of ["the SAE's", "d_sae", "w_enc_SD", "a latent", "prefix sum", "Autoencoder"]) {
    assertEquals(wordViolations("kernels/x.ts", word).length, 1, word);
  }
  assertEquals(wordViolations("kernels/x.ts", 'import { f } from "@saev/nn/kernels"; // a scan'), []);
});
