/** The naming rule lets the field's symbols pass and still catches what should be camelCase. @module */
import { assertEquals } from "@std/assert";
import plugin, { isAllowedName } from "./field_symbols_lint.ts";

const ALLOWED = [
  ..."W_enc b_enc W_dec b_dec h_x f_x x_hat x_hats x_BD f_BS f_x_BS x_hats_BPD grad_W_dec_SD grad_b_enc_S".split(" "),
  ..."grad_h_BS grad_x m_W_enc v_b_dec normedRows_SD d_model d_sae top_k n_prefixes n_dead n_lr_warmup".split(" "),
  ..."camelCase PascalCase UPPER_CASE GPU_2 _unused __private x $ a1 row_starts grad_norm".split(" "),
];
const REFUSED = [
  "my_var",
  "max_index",
  "myVar_two",
  "W_encoder",
  "x_bd",
  "Row_Count",
  "grad_my_var",
  "x_BDSPKB",
  "to_s",
];

Deno.test("names: the field's symbols pass", () => {
  assertEquals(ALLOWED.filter((name) => !isAllowedName(name)), []);
});

Deno.test("names: other underscores are refused", () => {
  assertEquals(REFUSED.filter(isAllowedName), []);
});

/** The names that the plugin reports in a source text. */
function reported(source: string): string[] {
  return Deno.lint.runPlugin(plugin, "main.ts", source).map((diagnostic) => /`(.*?)`/.exec(diagnostic.message)![1]!);
}

Deno.test("names: every kind of declaration is looked at", () => {
  const cases: [string, string[]][] = [
    ["const my_var = 1, W_enc = 2;", ["my_var"]],
    ["function do_it(a_b: number, { c_d, e: f_g, ...h_i }: T, [j_k = 1]: number[]) {}", [
      "do_it",
      "a_b",
      "c_d",
      "f_g",
      "h_i",
      "j_k",
    ]],
    ["const f = (a_b: number) => a_b; const g = function in_ner(...c_d: number[]) {};", ["a_b", "in_ner", "c_d"]],
    ["class A_b { c_d = 1; #e_f = 2; get g_h() { return 1; } constructor(private i_j: number) {} }", [
      "A_b",
      "c_d",
      "e_f",
      "g_h",
      "i_j",
    ]],
    ["try {} catch (an_error) {}", ["an_error"]],
    ["type A_b = 1; interface C_d {} enum E_f {}", ["A_b", "C_d", "E_f"]],
    ["class A { [Symbol.dispose]() {} ['a_b'] = 1; }", []],
  ];
  for (const [source, names] of cases) assertEquals(reported(source).sort(), names.sort(), source);
});

Deno.test("names: wire types, object keys, imports and uses are left alone", () => {
  assertEquals(
    reported(`
    import { odd_name } from "./foreign.ts";
    interface Wire { snake_case: number }
    const { d_model, snake_case: snakeCase } = { d_model: 1, snake_case: 2 };
    call(odd_name, object.some_field);
  `),
    [],
  );
});
