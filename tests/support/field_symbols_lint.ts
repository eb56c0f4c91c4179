/**
 * Lint plugin: names are camelCase, PascalCase or UPPER_CASE, except the field's own symbols.
 *
 * The stock `camelcase` rule would refuse `W_enc` and `x_BD`. This one knows the symbols that checkpoints and papers
 * use, shape suffixes (`grad_W_dec_SD`), dimensions (`d_model`) and counts (`n_dead`), and refuses every other
 * underscore. It checks only declarations; property names of wire types are data and keep their spelling.
 *
 * @module
 */

/** Arrays named in checkpoints or papers. They may carry a shape suffix and a prefix (`grad_W_enc_SD`). */
const SYMBOLS = ["W_enc", "b_enc", "W_dec", "b_dec", "h_x", "f_x", "x_hat", "x_hats", "r_mag", "b_mag"];

/** Fields of configurations and results that code holds in a variable of the same name. */
const FIELDS = [
  "top_k",
  "k_aux",
  "include_b_dec",
  "subtract_b_dec",
  "reinit_blend",
  "reinit_enc_dec_tranpose",
  "remove_parallel_grads",
  "normalize_w_dec",
  "sparsity_coeff",
  "group_sizes",
  "dead_threshold_tokens",
  "tokens_since_active",
  "dead_fraction",
  "almost_dead_below",
  "dense_above",
  "log10_edges",
  "per_latent",
  "grad_norm",
  "grad_clip",
  "log_every",
  "validation_every",
  "row_starts",
  "batch_size",
  "target_l0",
  "pre_act_scale",
  "bias_correction",
  "threshold_init",
  "k_start",
  "scale_encoder",
  "explained_variance",
  "max_iter",
  "mean_ap",
  "probe_r",
  "purity_at_16",
  "sse_recon",
  "sse_baseline",
  "ignore_labels",
  "cls_token",
  "pixel_agg",
  "bg_label",
  "patch_size",
  "content_tokens_per_example",
  "max_tokens_per_shard",
  "examples_per_shard",
  "rows_per_example",
  "image_mean",
  "image_std",
  "rescale_factor",
];

const CAMEL = "[a-z][a-zA-Z0-9]*";
const SYMBOL = `(?:${SYMBOLS.join("|")})`;
const BASE = `(?:${CAMEL}|(?:${CAMEL}_)?${SYMBOL}|grad_${CAMEL})`;
const ALLOWED = new RegExp(
  [
    "[^_]*",
    "[A-Z][A-Z0-9_]*",
    `${BASE}(?:_[A-Z]{1,4})?`,
    "[dn]_[a-z][a-z0-9_]*",
    ...FIELDS,
  ].map((pattern) => `^${pattern}$`).join("|"),
);

/** Whether a declared name follows the rule. */
export function isAllowedName(name: string): boolean {
  return ALLOWED.test(name.replace(/^_+|_+$/g, ""));
}

/** The published union of nodes omits parameter properties. */
type Node = Deno.lint.Node | Deno.lint.Parameter | null | undefined;
type Binding = Deno.lint.Identifier | Deno.lint.PrivateIdentifier;

/** The names that a declaration or a parameter binds, through any destructuring. */
function* boundNames(node: Node): Generator<Binding> {
  switch (node?.type) {
    case "Identifier":
      yield node;
      break;
    case "ObjectPattern":
      for (const property of node.properties) {
        yield* boundNames(property.type === "Property" ? property.value : property);
      }
      break;
    case "ArrayPattern":
      for (const element of node.elements) yield* boundNames(element);
      break;
    case "AssignmentPattern":
      yield* boundNames(node.left);
      break;
    case "RestElement":
      yield* boundNames(node.argument);
      break;
    case "TSParameterProperty":
      yield* boundNames(node.parameter);
      break;
  }
}

const fieldSymbols: Deno.lint.Rule = {
  create(context) {
    const check = (...nodes: Node[]): void => {
      for (const root of nodes) {
        for (const node of root?.type === "PrivateIdentifier" ? [root] : boundNames(root)) {
          if (isAllowedName(node.name)) continue;
          context.report({
            node,
            message: `\`${node.name}\` is neither camelCase nor a symbol of the field`,
            hint: "Write it in camelCase, or add the symbol to tests/support/field_symbols_lint.ts if papers or " +
              "checkpoints spell it so",
          });
        }
      }
    };
    return {
      VariableDeclarator: (node) => check(node.id),
      FunctionDeclaration: (node) => check(node.id, ...node.params),
      FunctionExpression: (node) => check(node.id, ...node.params),
      ArrowFunctionExpression: (node) => check(...node.params),
      ClassDeclaration: (node) => check(node.id),
      CatchClause: (node) => check(node.param),
      MethodDefinition: (node) => node.computed || check(node.key),
      PropertyDefinition: (node) => node.computed || check(node.key),
      TSTypeAliasDeclaration: (node) => check(node.id),
      TSInterfaceDeclaration: (node) => check(node.id),
      TSEnumDeclaration: (node) => check(node.id),
    };
  },
};

const plugin: Deno.lint.Plugin = { name: "saev", rules: { "field-symbols": fieldSymbols } };
export default plugin;
