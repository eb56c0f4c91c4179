/** Progress: what is written to a terminal and elsewhere, and how durations read. @module */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { DownloadLine, duration, printable, ProgressLine, type ProgressOptions } from "../../runner/terminal.ts";

/** A line with a clock that the test sets. */
function fakeLine(
  options: Omit<ProgressOptions, "write" | "now">,
): { line: ProgressLine; written: string[]; at: (ms: number) => void } {
  const written: string[] = [];
  let time = 1000;
  const line = new ProgressLine({ ...options, write: (text) => written.push(text), now: () => time });
  return { line, written, at: (ms) => time = 1000 + ms };
}

Deno.test("elsewhere there is a plain line at every twentieth", () => {
  const { line, written, at } = fakeLine({ n_steps: 1000, batch_size: 64, isTerminal: false });
  for (let step = 10; step <= 1000; step += 10) {
    at(step * 5);
    line.show({ step, loss: 1 / step, l0: 32 });
  }
  line[Symbol.dispose]();
  assertEquals(written.length, 20);
  assertEquals(written[0], "step 50/1000 · 12,800 examples/s · loss 0.02000 · L0 32.0 · 5 s left\n");
  assertEquals(written[19], "step 1000/1000 · 12,800 examples/s · loss 0.001000 · L0 32.0 · 0 s left\n");
});

Deno.test("on a terminal one line is redrawn", () => {
  const { line, written, at } = fakeLine({ n_steps: 4, batch_size: 1, isTerminal: true });
  at(1000);
  line.show({ step: 1, loss: 2, l0: 1 });
  line.show({ step: 4, loss: 1, l0: 1 });
  line[Symbol.dispose]();
  line[Symbol.dispose]();
  assertEquals(written.length, 3);
  // deno-lint-ignore no-control-regex
  assertMatch(written[0]!, /^\r\x1b\[K█████░{15} step 1\/4 · 1 examples\/s · loss 2\.000 · L0 1\.0 · 3 s left$/);
  assert(written[1]!.includes("█".repeat(20)));
  assertEquals(written[2], "\n");
});

Deno.test("a run without an end says no time left", () => {
  const { line, written } = fakeLine({ batch_size: 2, isTerminal: false });
  line.show({ step: 3, loss: 2, l0: 1 });
  assertEquals(written, ["step 3 · 6,000 examples/s · loss 2.000 · L0 1.0\n"]);
});

Deno.test("durations read well", () => {
  assertEquals([0, 59.4, 59.5, 185, 7620].map(duration), ["0 s", "59 s", "1 min 00 s", "3 min 05 s", "2 h 07 min"]);
});

Deno.test("a download is drawn on a terminal, not more often than eyes see, and each file in its own line", () => {
  const written: string[] = [];
  let time = 0;
  const line = new DownloadLine({ isTerminal: true, write: (text) => written.push(text), now: () => time });
  line.show({ path: "a/sae.pt", received: 1e6, size: 9e6 });
  for (const [at, received] of [[50, 2e6], [1000, 5e6], [1050, 6e6], [2000, 9e6]] as const) {
    time = at;
    line.show({ path: "a/sae.pt", received, size: 9e6 });
  }
  line.show({ path: "b\x1b[2Jc", received: 0, size: 0 });
  line[Symbol.dispose]();
  line[Symbol.dispose]();
  const [clear, full, empty] = ["\r\x1b[K", "█", "░"];
  assertEquals(written, [
    `${clear}${full.repeat(2)}${empty.repeat(18)} 1.0 of 9.0 MB · 0.0 MB/s · a/sae.pt`,
    `${clear}${full.repeat(11)}${empty.repeat(9)} 5.0 of 9.0 MB · 4.0 MB/s · 1 s left · a/sae.pt`,
    `${clear}${full.repeat(20)} 9.0 of 9.0 MB · 4.0 MB/s · a/sae.pt`,
    "\n",
    `${clear}${full.repeat(20)} 0.0 of 0.0 MB · 0.0 MB/s · b\\u001b[2Jc`,
    "\n",
  ]);
});

Deno.test("a download of unknown length shows what came, and is not drawn more often for it", () => {
  const written: string[] = [];
  let time = 0;
  const line = new DownloadLine({ isTerminal: true, write: (text) => written.push(text), now: () => time });
  for (const [at, received] of [[0, 1e6], [50, 2e6], [1000, 5e6]] as const) {
    time = at;
    line.show({ path: "a", received, size: null });
  }
  line[Symbol.dispose]();
  assertEquals(written, ["\r\x1b[K1.0 MB · 0.0 MB/s · a", "\r\x1b[K5.0 MB · 4.0 MB/s · a", "\n"]);
});

Deno.test("progress that cannot be written ends nothing", () => {
  const write = () => {
    throw new Deno.errors.BrokenPipe("the reader has gone");
  };
  for (const isTerminal of [true, false]) {
    using line = new ProgressLine({ n_steps: 2, batch_size: 1, isTerminal, write });
    line.show({ step: 1, loss: 2, l0: 1 });
    using download = new DownloadLine({ isTerminal, write });
    download.show({ path: "a", received: 1, size: 2 });
  }
});

Deno.test("text from elsewhere cannot move the cursor, turn its neighbours round, or hide", () => {
  const harmful: [from: number, to: number][] = [
    [0, 0x1f],
    [0x7f, 0x9f],
    [0x200b, 0x200f],
    [0x2028, 0x202e],
    [0x2060, 0x2064],
    [0x2066, 0x2069],
    [0xd800, 0xdfff],
    [0xfeff, 0xfeff],
    [0xe0001, 0xe0001],
  ];
  for (const [from, to] of harmful) {
    for (let point = from; point <= to; point++) {
      const text = `"a${String.fromCodePoint(point)}b"`;
      assertMatch(printable(text), /^"a(\\u[0-9a-f]{4})+b"$/);
      if (point > 0x1f) assertEquals(JSON.parse(printable(text)), JSON.parse(text));
    }
  }
  const plain = 'W_enc x̂ − ≥ 日本 é 😀 \\ "';
  assertEquals(printable(plain), plain);
});

Deno.test("a download says nothing where there is no terminal", () => {
  const written: string[] = [];
  using line = new DownloadLine({ isTerminal: false, write: (text) => written.push(text) });
  line.show({ path: "a", received: 1, size: 2 });
  line.show({ path: "a", received: 2, size: 2 });
  assertEquals(written, []);
});
