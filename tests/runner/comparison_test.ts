/** Runs side by side: what their folders say, the front, names, differences, the files, the best of them, the page. @module */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import {
  compare,
  comparisonCsv,
  comparisonFiles,
  pickRuns,
  spacedInLog,
  writeComparison,
} from "../../runner/comparison.ts";
import { type ComparedRun, readRun, runFoldersAt } from "../../runner/compared_runs.ts";
import type { ComparisonData } from "../../runner/pages/data.ts";
import { inBrowser, openBrowser, VIEWS } from "../support/page_in_browser.ts";

const OLD = new URL("../fixtures/run_of_0.1.0", import.meta.url).pathname;

/** A run as its folder would say it. */
function run(path: string, nmse: number | null, l0: number | null, changes: Partial<ComparedRun> = {}): ComparedRun {
  return {
    path,
    state: "trained",
    steps: 10,
    seconds: 2,
    measured: { nmse, l0, dead_fraction: 0.25, n_dense: 1, cosine: 0.9, density: null },
    measuredOn: "60 rows",
    configuration: new Map([["sae.d_sae", "32"], ["train.lr", "0.001"]]),
    curves: {},
    files: ["sae.pt", "report.html"],
    ...changes,
  };
}

/** What a folder of a run holds; `losses` is the loss of each step. */
interface WrittenRun {
  readonly lr: number;
  readonly nmse: number | null;
  readonly l0?: number;
  readonly losses: readonly number[];
  readonly sha256?: string;
  readonly layer?: number;
}

/** Writes the files that a run leaves. */
async function writeRun(path: string, { lr, nmse, l0 = 4, losses, sha256 = "a".repeat(64), layer }: WrittenRun) {
  await Deno.mkdir(path, { recursive: true });
  const config = {
    data: { path: "acts.npy", layer: layer ?? null },
    sae: { d_sae: 8, activation: { key: "top-k", top_k: l0 } },
    train: { lr },
  };
  const record = {
    saev_nn_run: 1,
    kind: "run",
    files: ["sae.pt", "metrics.json", "metrics.jsonl", "report.html", "config.json"],
    sessions: [{ step: 0, data: { path: "acts.npy", sha256 } }],
  };
  const metrics = nmse === null ? null : {
    n_rows: 60,
    nmse,
    l0,
    dead_fraction: 0.25,
    n_dense: 2,
    cosine: 0.9,
    density: [0, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 1],
  };
  const lines = losses.map((loss, i) =>
    JSON.stringify({
      step: i + 1,
      loss,
      l0,
      n_dead: i,
      lr: lr * i,
      seconds: i,
      ...i % 5 === 4 && { validation: { n_rows: 60, nmse: loss / 10, l0, dead_fraction: 0 } },
    }) + "\n"
  );
  const files = {
    "run.json": JSON.stringify(record),
    "config.json": JSON.stringify(config),
    "metrics.json": JSON.stringify({ isInterrupted: nmse === null, metrics, seconds: 3, evaluated_on: "validation" }),
    "metrics.jsonl": lines.join("") + '{"step":',
    "report.html": "<!doctype html>",
    "sae.pt": JSON.stringify({ schema: 5, cfg: { activation: { cls: "TopK", params: { top_k: l0 } } } }) + "\nbytes",
  };
  for (const [name, text] of Object.entries(files)) await Deno.writeTextFile(`${path}/${name}`, text);
}

async function inFolder(work: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await work(path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

/** Three runs of a sweep, of which one was stopped. */
async function writeSweep(path: string): Promise<void> {
  await writeRun(`${path}/0`, { lr: 0.001, nmse: 0.5, l0: 2, losses: [3, 2, 1, 1, 1] });
  await writeRun(`${path}/1`, { lr: 0.01, nmse: 0.3, l0: 4, losses: [9, 5, 3, 2, 2, 2] });
  await writeRun(`${path}/2`, { lr: 0.1, nmse: null, losses: [8, 8] });
  const record = { saev_nn_run: 1, kind: "sweep", files: ["sweep.json"], runs: ["0", "1", "2"], sessions: [] };
  await Deno.writeTextFile(`${path}/run.json`, JSON.stringify(record));
}

Deno.test("a folder says what became of its run, whether it was finished or not", async () => {
  await inFolder(async (path) => {
    await writeSweep(path);
    assertEquals(await runFoldersAt(path), ["0", "1", "2"].map((name) => `${path}/${name}`));
    assertEquals(await runFoldersAt(`${path}/0`), [`${path}/0`]);
    for (const other of [`${path}/none`, `${path}/run.json`]) assertEquals(await runFoldersAt(other), null);

    const whole = await readRun(`${path}/1`);
    assertEquals([whole.state, whole.steps, whole.seconds, whole.files], ["trained", 6, 3, ["sae.pt", "report.html"]]);
    const { density, ...numbers } = whole.measured!;
    assertEquals(numbers, { nmse: 0.3, l0: 4, dead_fraction: 0.25, n_dense: 2, cosine: 0.9 });
    assertEquals([density!.n_latents, density!.n_dead], [8, 2]);
    assertEquals(whole.measuredOn, "60 validation rows of acts.npy (aaaaaaaaaaaa)");
    assertEquals(Object.fromEntries(whole.configuration), {
      "data.path": "acts.npy",
      "sae.d_sae": "8",
      "sae.activation.key": "top-k",
      "sae.activation.top_k": "4",
      "train.lr": "0.01",
    });
    assertEquals(whole.curves, {
      loss: { x: [1, 2, 3, 4, 5, 6], y: [9, 5, 3, 2, 2, 2] },
      l0: { x: [1, 2, 3, 4, 5, 6], y: [4, 4, 4, 4, 4, 4] },
      n_dead: { x: [1, 2, 3, 4, 5, 6], y: [0, 1, 2, 3, 4, 5] },
      lr: { x: [1, 2, 3, 4, 5, 6], y: [0, 0.01, 0.02, 0.03, 0.04, 0.05] },
      validation: { x: [5], y: [0.2] },
    });
    const stopped = await readRun(`${path}/2`);
    assertEquals([stopped.state, stopped.measured, stopped.measuredOn], ["stopped at step 2", null, null]);
    await Deno.remove(`${path}/2/metrics.json`);
    assertEquals((await readRun(`${path}/2`)).state, "at step 2");
    await Deno.writeTextFile(`${path}/2/metrics.json`, JSON.stringify({ diverged: "x_hat has …", metrics: null }));
    assertEquals((await readRun(`${path}/2`)).state, "diverged");
  });
});

Deno.test("a run of 0.1.0, which has no log, is compared too", async () => {
  const old = await readRun(OLD);
  assert(old.steps! > 0 && old.curves.loss!.y.length > 0, "the losses of metrics.json");
  assertEquals([old.curves.lr, old.curves.validation], [undefined, undefined]);
  assertEquals(old.configuration.get("sae.activation.key"), "top-k");
});

Deno.test("on the front is what no other of its layer beats in L0 and NMSE", () => {
  const layer = (n: string) => ({ configuration: new Map([["data.layer", n]]) });
  const { isOnFront } = compare([
    run("a", 0.5, 2),
    run("b", 0.3, 4),
    run("worse", 0.5, 4),
    run("tie", 0.3, 4),
    run("unmeasured", null, 3),
    run("none", 0.1, 1, { measured: null }),
    run("deeper", 0.9, 9, layer("7")),
  ]);
  assertEquals(isOnFront, [true, true, false, true, false, false, true]);
  assertThrows(() => compare([]), RangeError, "there are no runs");
});

Deno.test("names have no more folders than they need, and only fields that differ are differences", () => {
  const other = { configuration: new Map([["train.lr", "0.01"], ["train.seed", "3"], ["sae.d_sae", "32"]]) };
  const { names, differences } = compare([run("runs/a/0", 1, 1), run("./runs/b/0/", 1, 1, other)]);
  assertEquals(names, ["a/0", "b/0"]);
  assertEquals(differences, [
    { field: "train.lr", values: ["0.001", "0.01"] },
    { field: "train.seed", values: [null, "3"] },
  ]);
  const silent = run("x.pt", 1, 1, { steps: null, configuration: new Map([["sae.d_sae", "64"]]) });
  assertEquals(compare([run("a", 1, 1), silent]).differences, [{ field: "sae.d_sae", values: ["32", "64"] }]);
  const foreign = run("hf:owner/repository/sae.pt", 1, 1, { steps: null });
  assertEquals(compare([run("/runs/a", 1, 1), foreign]).names, ["a", "hf:owner/repository/sae.pt"]);
  assertEquals(compare([foreign]).names, ["hf:owner/repository/sae.pt"]);
  assertEquals(compare([run("runs/a", 1, 1)]).names, ["a"]);
  assertEquals(compare([run("runs/a", 1, 1), run("runs/a/b", 1, 1)]).names, ["a", "a/b"]);
});

Deno.test("runs that were measured on other rows are warned of", () => {
  const same = compare([run("a", 1, 1), run("b", 1, 1), run("c", 1, 1, { measured: null, measuredOn: null })]);
  assertEquals(same.warnings, []);
  const [warning] = compare([run("a", 1, 1), run("b", 1, 1, { measuredOn: "60 others" })]).warnings;
  assertStringIncludes(warning!, "60 rows; 60 others; saev compare --data measures all of them");
});

Deno.test("the table keeps commas and quotes within their cells, and formulas from being any", () => {
  const csv = comparisonCsv(compare([
    run('a,"b"', 0.5, 2, { configuration: new Map([["data.path", "=HYPERLINK(1)"]]) }),
    run("c", null, null, { measured: null, steps: 1, seconds: null, configuration: new Map() }),
  ]));
  assertEquals(csv.split("\n"), [
    "run,state,on_front,steps,seconds,nmse,l0,dead_fraction,n_dense,cosine,data.path",
    '"a,""b""",trained,true,10,2,0.5,2,0.25,1,0.9,\'=HYPERLINK(1)',
    "c,trained,false,1,,,,,,,",
    "",
  ]);
});

Deno.test("the best are spaced in log L0", () => {
  const all = [1, 2, 3, 10, 90, 100, 1000].map((l0) => ({ l0 }));
  const picked = (n: number) => spacedInLog(all.toReversed(), n).map(({ l0 }) => l0);
  assertEquals([picked(1), picked(2), picked(4)], [[90], [1, 1000], [1, 10, 100, 1000]]);
  assertEquals(picked(9), [1, 2, 3, 10, 90, 100, 1000]);
  assertEquals(spacedInLog([{ l0: 5 }, { l0: 5 }, { l0: 5 }], 2), [{ l0: 5 }, { l0: 5 }]);
});

Deno.test("picked runs are copied, with a line in the manifest for each", async () => {
  await inFolder(async (path) => {
    await writeRun(`${path}/x/0`, { lr: 1, nmse: 0.5, l0: 2, losses: [1], layer: 11 });
    await writeRun(`${path}/x/1`, { lr: 1, nmse: 0.3, l0: 4, losses: [1], layer: 11 });
    await writeRun(`${path}/x/2`, { lr: 1, nmse: 0.6, l0: 4, losses: [1], layer: 11 });
    await writeRun(`${path}/y/0`, { lr: 1, nmse: 0.9, l0: 8, losses: [1] });
    const runs = [];
    for (const name of ["x/0", "x/1", "x/2", "y/0"]) runs.push(await readRun(`${path}/${name}`));
    const comparison = compare([...runs, run("foreign.pt", 0.01, 1, { files: [] })]);
    const picked = await pickRuns(comparison, 6, `${path}/out`);
    const lines = (await Deno.readTextFile(`${path}/out/manifest.jsonl`)).trimEnd().split("\n");
    assertEquals(lines.map((line) => JSON.parse(line)), picked);
    const copy = await Deno.readFile(`${path}/out/layer_11/${picked[0]!.run_id}/sae.pt`);
    assertEquals(copy, await Deno.readFile(`${path}/x/0/sae.pt`));
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", copy)).toHex();
    const [id, otherId] = picked.map((one) => one.run_id);
    assertEquals(picked.slice(0, 2), [
      {
        run_id: id!,
        layer: 11,
        path: `layer_11/${id}/sae.pt`,
        l0: 2,
        nmse: 0.5,
        activation: { cls: "TopK", params: { top_k: 2 } },
        sha256: hash,
      },
      {
        run_id: otherId!,
        layer: 11,
        path: `layer_11/${otherId}/sae.pt`,
        l0: 4,
        nmse: 0.3,
        activation: { cls: "TopK", params: { top_k: 4 } },
        sha256: picked[1]!.sha256,
      },
    ]);
    // The foreign checkpoint beats the one whose layer is not known.
    assertEquals(picked.length, 2);
    await assertRejects(() => pickRuns(comparison, 6, `${path}/out`), RangeError, "is there already");
    await assertRejects(
      () => pickRuns(compare([run("a", null, null)]), 1, `${path}/none`),
      RangeError,
      "no run with a model",
    );
  });
});

Deno.test("a comparison replaces an older one, and no other file", async () => {
  await inFolder(async (path) => {
    await writeSweep(`${path}/sweep`);
    const { names } = await writeComparison([`${path}/sweep`], `${path}/out`);
    assertEquals(names, ["0", "1", "2"]);
    await writeComparison([`${path}/sweep`, `${path}/sweep/0`], `${path}/out`);
    assertEquals((await Deno.readTextFile(`${path}/out/compare.csv`)).trimEnd().split("\n").length, 5);
    await assertRejects(() => writeComparison([path], `${path}/out`), RangeError, "is not the folder of a run");
    await Deno.writeTextFile(`${path}/out/compare.html`, "mine");
    await assertRejects(() => writeComparison([`${path}/sweep`], `${path}/out`), RangeError, "is not replaced");
    assertEquals(await Deno.readTextFile(`${path}/out/compare.html`), "mine");
  });
});

Deno.test("Chromium shows a comparison at every width and in both themes, and it sorts, hides and links", async () => {
  await inFolder(async (path) => {
    const step = (i: number, run: number) => (5 + run) / (1 + i / 30) + Math.sin(i * (run + 1));
    for (let i = 0; i < 14; i++) {
      const losses = Array.from({ length: 600 }, (_, t) => step(t, i));
      await writeRun(`${path}/runs/${i}`, {
        lr: 0.001 * (i % 3 + 1),
        nmse: 0.9 / (i + 1) ** 0.5,
        l0: 4 * (i + 1),
        losses,
      });
    }
    const runs = [];
    for (let i = 0; i < 14; i++) runs.push(await readRun(`${path}/runs/${i}`));
    const other = run("</script><b>.pt", 0.9, 30, { files: [], steps: null, measuredOn: "other rows" });
    const comparison = compare([...runs, other, run(`${path}/runs/unmeasured`, null, null, { measured: null })]);
    const [page] = comparisonFiles(comparison, path);
    const data = JSON.parse(/id="data">(.*)<\/script>/.exec(page!.text)![1]!) as ComparisonData;
    assertEquals(data.models.length, 16);
    await Deno.writeTextFile(`${path}/compare.html`, page!.text);
    await using browser = await openBrowser();
    for (const view of VIEWS) {
      await inBrowser(browser, `${path}/compare.html`, view, async (page) => {
        assertStringIncludes(await page.locator("#warnings ~ ul").innerText(), "not measured on the same rows");
        assertEquals(await page.locator("a.point").count(), 14);
        assertEquals(await page.locator(".point").count(), 15);
        // Every point lies within its chart, and says what it is, to a mouse and to a keyboard.
        const outside = await page.evaluate(`Array.from(document.querySelectorAll(".point"), (one) => {
          const [a, b] = [one, one.parentElement].map((element) => element.getBoundingClientRect());
          return a.left < b.left - 8 || a.right > b.right + 8 || a.top < b.top - 8 || a.bottom > b.bottom + 8;
        }).filter(Boolean).length`);
        assertEquals(outside, 0);
        const last = page.locator("a.point").last();
        await last.hover();
        assertStringIncludes(await page.locator(".tooltip").innerText(), "L0 56, NMSE 0.2405");
        await page.mouse.move(0, 0);
        await page.locator("a.point").first().focus();
        assertStringIncludes(await page.locator(".tooltip").innerText(), "L0 4, NMSE 0.9");
        assertStringIncludes((await last.getAttribute("href"))!, "runs/13/report.html");
        const firstRuns = async () => (await page.locator("table.sortable tbody tr .run").allInnerTexts()).slice(0, 2);
        await page.getByRole("button", { name: "NMSE", exact: true }).click();
        assertEquals((await firstRuns())[0]!.trim(), "13");
        await page.getByRole("button", { name: "NMSE", exact: true }).click();
        assertEquals(await page.locator('th[aria-sort="descending"]').innerText(), "NMSE");
        assertEquals((await firstRuns())[0]!.trim(), "0");
        await page.getByRole("checkbox", { name: "draw 0", exact: true }).uncheck();
        assertEquals(await page.locator("a.point").count(), 13);
        await page.getByRole("button", { name: "show all 16 runs" }).click();
        assertEquals(await page.locator("a.point").count(), 14);
        await page.getByRole("button", { name: "show the other 2" }).click();
        assertEquals(await page.locator("#density ~ .charts figure").count(), 14);
        assertEquals(
          await page.locator("#differences ~ .wide tbody tr").first().innerText().then((row) => row.split("\t")[0]),
          "data.path",
        );
        await last.click();
        await page.waitForURL("**/runs/13/report.html");
        await page.goBack();
        await page.waitForSelector("a.point");
      });
    }
  });
});
