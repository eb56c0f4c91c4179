/**
 * The judge of compiled kernels: what it lets pass, what it does not, and how it reads SPIR-V and package sources.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { type Figures, figuresOf, parseTable, regressions, tableText } from "../../../tools/gpu/figures.ts";
import { withBackports } from "../../../tools/gpu/mesa.ts";
import { interfaceOf } from "../../../tools/gpu/vulkan.ts";

const good: Figures = {
  registers: 32,
  spills: 0,
  workgroupBytes: 512,
  waves: 16,
  code: 700,
  latency: 900,
  inverseThroughput: 100,
};

Deno.test("a spill, fewer waves, a new kernel and one that is gone are regressions; nothing else is", () => {
  const of = (figures: Partial<Figures>) => regressions({ adam: { ...good, ...figures } }, { adam: good });
  assertEquals(of({}), []);
  assertEquals(
    of({ registers: 200, workgroupBytes: 9000, waves: 20, code: 9000, latency: 1, inverseThroughput: 1 }),
    [],
  );
  assertEquals(of({ spills: 1 }), ["adam: 1 registers spill"]);
  assertEquals(of({ waves: 15, registers: 40 }), ["adam: 15 waves, 16 in the table; 40 registers"]);
  assertEquals(regressions({ adam: good, muon: good }, { adam: good }), ["muon is not in the table"]);
  assertEquals(regressions({ adam: good }, { adam: good, muon: good }), ["muon is only in the table"]);
  assertEquals(regressions({ adam: good }, undefined), ["adam is not in the table"]);
});

Deno.test("a row has the worst of its texts, and the table's file keeps it", () => {
  const shader = (row: string, registers: number, spilled: [number, number], waves: number) => ({
    row,
    statistics: {
      "VGPRs": registers,
      "Spilled VGPRs": spilled[0],
      "Spilled SGPRs": spilled[1],
      "LDS size": 0,
      "Subgroups per SIMD": waves,
      "Code size": 10,
      "Latency": 20,
      "Inverse Throughput": 30,
    },
  });
  const shaders = [shader("b", 8, [0, 0], 32), shader("a", 64, [1, 2], 9), shader("a", 48, [0, 5], 7)];
  const kernels = figuresOf({ device: "a GPU", version: "25.0.7", shaders });
  const rest = { workgroupBytes: 0, code: 10, latency: 20, inverseThroughput: 30 };
  assertEquals(kernels, {
    a: { registers: 64, spills: 5, waves: 7, ...rest },
    b: { registers: 8, spills: 0, waves: 32, ...rest },
  });
  const table = { mesa: "25.0.7", compiler: "a compiler", families: { vega10: kernels, navi21: { b: kernels.b! } } };
  assertEquals(parseTable(tableText(table)), table);
});

Deno.test("of SPIR-V, the entry point and the bindings are read", () => {
  const instruction = (code: number, ...operands: number[]) => [(operands.length + 1) << 16 | code, ...operands];
  const name = [...new Uint32Array(new TextEncoder().encode("main\0\0\0\0").buffer)];
  const words = Uint32Array.of(
    ...[0x07230203, 0x10300, 0, 99, 0],
    ...instruction(15, 5, 4, ...name),
    ...instruction(71, 10, 33, 0),
    ...instruction(71, 11, 33, 2),
    ...instruction(71, 12, 34, 0),
    ...instruction(59, 1, 10, 2),
    ...instruction(59, 1, 11, 12),
  );
  assertEquals(interfaceOf(new Uint8Array(words.buffer)), {
    entryPoint: "main",
    bindings: [{ binding: 0, type: 8 }, { binding: 2, type: 7 }],
  });
});

Deno.test("package sources of either form get the backports beside the release, and keep all else", () => {
  const stanzas = "Types: deb\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n" +
    "Types: deb\nURIs: http://mirror/security\nSuites: bookworm-security\nComponents: main\n";
  assertEquals(
    withBackports(stanzas),
    stanzas.replace("bookworm bookworm-updates", "bookworm bookworm-backports bookworm-updates"),
  );
  const lines = "deb http://mirror/debian bookworm main\ndeb http://mirror/security bookworm-security main\n";
  assertEquals(
    withBackports(lines),
    "deb http://mirror/debian bookworm main\ndeb http://mirror/debian bookworm-backports main\n" +
      "deb http://mirror/security bookworm-security main\n",
  );
});
