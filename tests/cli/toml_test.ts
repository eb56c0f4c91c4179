/** Configuration files: what is read as it stands, what is refused, and where. @module */
import { assertEquals, assertThrows } from "@std/assert";
import { parse } from "@std/toml";
import { parseToml } from "../../cli/toml.ts";

/** Documents that are whole, in every way to write a key or a value. */
const WHOLE: Readonly<Record<string, string>> = {
  "nothing": "",
  "comments alone": "# one\n\n  # two",
  "a configuration": `
    [data]
    path = "a.npy"          # rows
    [sae]
    d_sae = 32
    activation = { key = "top-k", top_k = 2, aux = { key = "auxk" } }
    [train]
    lr = [1e-3, 1e-4]
    n_steps = 1_000
    grad_clip = false
  `,
  "dotted keys":
    "data.path = 'a.npy'\ntrain.lr = 1\ntrain . seed = 2\n[sae]\nactivation.key = 'relu'\nactivation.aux.key = 'x'",
  "lists over lines": "a = [\n  [1, 2], # one = 1\n  [3],\n]\nb = [ { c = 1 }, { c = 1 } ]\nd = []",
  "texts with signs of their own": `a = "= [ { # \\" ,"\nb = '= \\'\nc = "]"`,
  "texts over lines": `a = """\nb = 1\nb = 2\n"""\nc = '''\nc = 1\n'''`,
  "tables of a table": "[a.b]\nc = 1\n[a.e]\nc = 1\n[f]\nc = 1",
  "several tables of one name": "[[a]]\nb = 1\n[a.c]\nd = 1\n[[a]]\nb = 2\n[a.c]\nd = 2",
  "Windows' ends of lines": "[a]\r\nb = 1\r\nc = 'x'\r\n",
  "dates": "a = 1979-05-27\nb = 1979-05-27T07:32:00Z",
  "an empty table": "a = {}\nb = { }",
};

for (const [what, text] of Object.entries(WHOLE)) {
  Deno.test(`as the parser reads it: ${what}`, () => assertEquals(parseToml(text), parse(text)));
}

const REFUSED: readonly (readonly [text: string, message: string])[] = [
  ["a = 1\nb = 2\na = 3", "line 3: a is given twice; the first is on line 1"],
  ["[train]\nlr = 1\n\n[sae]\n[train]\nlr = 2", "line 5: train is given twice; the first is on line 1"],
  ["[train]\nlr = 1\nseed = 1\nlr = 2", "line 4: lr is given twice; the first is on line 2"],
  ["x = { a = 1, b = 2, a = 3 }", "line 1: a is given twice; the first is on line 1"],
  ["x = [\n  { a = 1 },\n  { b = 1, b = 2 },\n]", "line 3: b is given twice; the first is on line 3"],
  ["x = { y = { a = 1,  'a' = 2 } }", "line 1: a is given twice"],
  ["train.lr = 1\ntrain.lr = 2", "line 2: train.lr is given twice; the first is on line 1"],
  ["train.lr = 1\n[train]\nseed = 2", "line 2: train is given twice; the first is on line 1"],
  ["a = { b = 1 }\na.c = 2", "line 2: a is given twice; the first is on line 1"],
  ["a = { b = 1 }\n[a.c]", "line 2: a is given twice; the first is on line 1"],
  ["a = 1\na.b = 2", "line 2: a is given twice; the first is on line 1"],
  ["[a]\nb = 1\n[a.b]", "line 3: a.b is given twice; the first is on line 2"],
  ["[a.b]\nc = 1\n[a]\nd = 2", "line 3: [a] comes after a table nested in it, on line 1; move it up"],
  ["[a.b.c]\n[a.b]", "line 2: [a.b] comes after a table nested in it, on line 1; move it up"],
  ["[[a]]\n[a]", "line 2: a is given twice; the first is on line 1"],
  ["[a]\n[[a]]", "line 2: a is given twice; the first is on line 1"],
  ['"a" = 1\na = 2', "line 2: a is given twice; the first is on line 1"],
  ['s = """\n\n"""\na = 1\na = 2', "line 5: a is given twice; the first is on line 4"],
  ['"\\u0061" = 1', "line 1: unknown field \\u0061"],
  ["\n__proto__ = { a = 1 }", "line 2: unknown field __proto__"],
  ["a = {".repeat(3000), "line 1: tables and lists are nested more than 16 deep"],
  [`a = ${"[".repeat(3000)}`, "line 1: tables and lists are nested more than 16 deep"],
  [`[${"a.".repeat(3000)}a]`, "line 1: tables and lists are nested more than 16 deep"],
  ["a", "line 1: found the end of the file; expected = after a"],
  ["a = 1 b = 2", 'line 1: found "b" after the value'],
  ["a =\nb = 2", "line 1: found the end of the line; expected a value"],
  ["a = 'x", "line 1: a string has no closing quote on its line"],
  ['a = """x\n', "line 1: a string has no closing quote"],
  ["a = ['1' 2]", 'line 1: found "2" in a list; expected , or ]'],
  ["a = [1,", "line 1: found the end of the file; expected a value"],
  ["a = { b = 1", "line 1: found the end of the file in a table; expected , or }"],
  ["[a", "line 1: found the end of the file in the name of a table"],
  ["= 1", 'line 1: found "="; expected a key'],
];

for (const [text, message] of REFUSED) {
  Deno.test(`refused: ${JSON.stringify(text.slice(0, 40))}`, () => {
    const { message: found } = assertThrows(() => parseToml(text), SyntaxError);
    assertEquals(found.slice(0, message.length), message);
  });
}
