/**
 * The command line with no more permissions than its help names, and as a user who cannot read the home folder.
 *
 * @module
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { load } from "../../io/checkpoints/checkpoint.ts";
import { writeNpy } from "../../io/npy.ts";
import { Random } from "../support/random.ts";
import { serveFiles } from "../io/file_server.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const CHECKPOINT = `${ROOT}tests/goldens/checkpoints/schema5_top_k.pt`;

const RUN = `
  data = { path = "a.npy", validation_share = 0.25 }
  sae = { d_sae = 16, activation = { key = "top-k", top_k = 2 } }
  train = { batch_size = 50, n_steps = 2, log_every = 1 }
`;

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A folder with a checkpoint, rows and a configuration, for one test. */
async function inFolder(use: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await Deno.copyFile(CHECKPOINT, `${path}/a.pt`);
    await Deno.writeFile(`${path}/a.npy`, writeNpy({ data: new Random(1).normal(400 * 8), rows: 400, cols: 8 }));
    await Deno.writeTextFile(`${path}/a.toml`, RUN);
    await Deno.mkdir(`${path}/probed`);
    for (const name of ["token_acts.npz", "labels.bin", "metadata.json"]) {
      await Deno.copyFile(`${ROOT}tests/goldens/probe1d/train/${name}`, `${path}/probed/${name}`);
    }
    await use(path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

/** Runs the command line with these flags of `deno run`, and with nothing that it could ask for more. */
async function saev(
  cwd: string,
  flags: readonly string[],
  args: readonly string[],
  { env = {}, wrapper = [] }: { env?: Record<string, string>; wrapper?: readonly string[] } = {},
): Promise<Ended> {
  const line = [
    ...wrapper,
    Deno.execPath(),
    "run",
    "--quiet",
    "--no-prompt",
    "--config",
    `${ROOT}deno.json`,
    ...flags,
    `${ROOT}cli/mod.ts`,
    ...args,
  ];
  const output = await new Deno.Command(line[0]!, { args: line.slice(1), cwd, env, stdin: "null" }).output();
  const [stdout, stderr] = [output.stdout, output.stderr].map((bytes) => new TextDecoder().decode(bytes));
  // The driver's own complaints about its environment are left out.
  const lines = stderr!.split("\n").filter((line) => !line.includes("XDG_RUNTIME_DIR"));
  return { code: output.code, stdout: stdout!, stderr: lines.join("\n") };
}

Deno.test("each command works with the permissions that its help names, and no others", async () => {
  await inFolder(async (path) => {
    const cases: [flags: string[], args: string[]][] = [
      [["--allow-read=a.pt"], ["inspect", "a.pt"]],
      [["--allow-read=a.toml,a.npy,out", "--allow-write=out"], ["train", "a.toml", "--out", "out"]],
      [["--allow-read=a.pt,a.npy"], ["evaluate", "a.pt", "a.npy"]],
      [["--allow-read=a.pt,a.npy,codes", "--allow-write=codes"], [
        "encode",
        "a.pt",
        "--data",
        "a.npy",
        "--out",
        "codes",
      ]],
      [["--allow-read", "--allow-write=job"], ["train", "a.toml", "--out", "job", "--slurm"]],
      [["--allow-read=a.npy,pca", "--allow-write=pca"], ["baseline", "pca", "a.npy", "--out", "pca"]],
      [["--allow-read=probed", "--allow-write=probed"], ["probe", "probed", "--labels", "probed"]],
      [["--allow-read=a.pt,b", "--allow-write=b"], ["convert", "a.pt", "b/b.pt", "--to", "saev"]],
      [[], ["tune", "--budget", "0", "--batch-size", "8", "--d-model", "8", "--d-sae", "8"]],
      [[`--allow-read=demo,${ROOT}examples/demo/photos`, "--allow-write=demo"], [
        ...["demo", "--out", "demo", "--steps", "2", "--d-sae", "16", "--top-k", "2", "--batch-size", "16"],
      ]],
      [[], ["--help"]],
      [[], ["config"]],
      [["--allow-read"], ["--version"]],
    ];
    const ended = await Promise.all(cases.map(([flags, args]) => saev(path, flags, args)));
    for (const [i, { code, stderr }] of ended.entries()) assertEquals(code, 0, `${cases[i]![1].join(" ")}: ${stderr}`);
    const collected = await saev(path, ["--allow-read=out", "--allow-write=out"], ["collect", "out"]);
    assertEquals([collected.code, collected.stderr], [0, "1 of 1 runs are finished\n"]);
    const compared = await saev(path, ["--allow-read=out,compare", "--allow-write=compare"], ["compare", "out"]);
    assertEquals([compared.code, compared.stderr], [0, "comparison: compare/compare.html\n"]);
    assertMatch(ended[0]!.stdout, /^format {4}saev, schema 5\n/);
    assertEquals(ended[0]!.stderr, "");
    assertStringIncludes(ended[8]!.stderr, "the results were not saved");
    assertStringIncludes(await Deno.readTextFile(`${path}/out/report.html`), "<!doctype html>");
    using again = await load(`${path}/b/b.pt`);
    assert(again.cfg.d_model === 8);

    const without = await saev(path, [], ["inspect", "a.pt"]);
    assertEquals([without.code, without.stdout], [1, ""]);
    assertMatch(without.stderr, /^error: [^\n]*a\.pt[^\n]*--allow-read[^\n]*\n$/);
  });
});

/** Runs a program for which file modes count, which they do not for root. */
const ORDINARY = Deno.uid() === 0 ? ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] : [];

Deno.test("a user whose home and cache cannot be read trains, evaluates and downloads, and is told once", async () => {
  const { DENO_DIR, HOME } = Deno.env.toObject();
  const bytes = await Deno.readFile(CHECKPOINT);
  await using server = serveFiles({
    files: { "/me/saes/resolve/main/sae.pt": { bytes, etag: '"1"' } },
    instead: (_, place) => place.startsWith("/api/") ? Response.json([{ type: "file", path: "sae.pt" }]) : undefined,
  });
  await inFolder(async (path) => {
    const home = `${path}/home`;
    const env = {
      HOME: home,
      XDG_CACHE_HOME: "",
      DENO_DIR: DENO_DIR ?? `${HOME}/.cache/deno`,
      HF_ENDPOINT: server.origin,
    };
    const cases: string[][] = [
      ["train", "a.toml", "--out", "out"],
      ["evaluate", "hf:me/saes/sae.pt", "a.npy"],
    ];
    const check = async (cases: readonly string[][], why: RegExp, wrapper: readonly string[]): Promise<void> => {
      const ended = await Promise.all(cases.map((args) => saev(path, ["-A"], args, { env, wrapper })));
      for (const [i, { code, stderr }] of ended.entries()) {
        const args = cases[i]!;
        assertEquals(code, 0, `${args.join(" ")}: ${stderr}`);
        const said = stderr.split("\n").filter((line) => line.includes(home));
        // Downloads and the tuner's choice have a file each.
        assertEquals(said.length, args[0] === "evaluate" ? 2 : 1, stderr);
        for (const line of said) assertMatch(line, why);
      }
    };
    await Deno.mkdir(home, { mode: 0o000 });
    try {
      await check(cases, /: permission denied/, ORDINARY);
    } finally {
      await Deno.chmod(home, 0o700);
      await Deno.remove(`${path}/out`, { recursive: true });
    }
    await Deno.writeTextFile(`${home}/.cache`, "");
    await check(cases.slice(0, 1), /: a file is in the way of the folder/, []);
  });
});
