/**
 * The tiles of a matrix product, and which of them a device uses for a shape.
 *
 * @module
 */

import type { DeviceContext } from "./engine/device.ts";

/**
 * How A and B lie in memory: `nn` A[M, K] · B[K, N], `nt` A[M, K] · B[N, K]ᵀ, `tn` A[K, M]ᵀ · B[K, N].
 */
export type Layout = "nn" | "nt" | "tn";

/** The shape of a product. */
export interface ProductShape {
  /** How A and B lie. */
  readonly layout: Layout;
  /** Rows of C. */
  readonly M: number;
  /** Columns of C. */
  readonly N: number;
  /** Terms of each sum. */
  readonly K: number;
}

/** How a product is divided among invocations. */
export interface Tile {
  /**
   * Which invocations share loads: none (`register`), a subgroup of eight those of A (`subgroup`), or a workgroup of 16
   * × 16 those of A and B (`workgroup`).
   */
  readonly sharing: "register" | "subgroup" | "workgroup";
  /** Rows of C that an invocation computes. */
  readonly rows: number;
  /** Columns of C that an invocation computes. */
  readonly columns: number;
}

/** A tile's name: how it shares loads, and the rows and columns of an invocation. */
export type TileName =
  | "register 4x4"
  | "register 8x8"
  | "register 16x8"
  | "register 16x16"
  | "subgroup 8x8"
  | "subgroup 16x8"
  | "subgroup 32x4"
  | "subgroup 32x8"
  | "subgroup 64x4"
  | "subgroup 32x16"
  | "subgroup 64x8"
  | "workgroup 4x4"
  | "workgroup 8x8";

// The fastest to compile of each kind comes first.
const NAMES: readonly TileName[] = [
  "register 4x4",
  "register 8x8",
  "register 16x8",
  "register 16x16",
  "subgroup 8x8",
  "subgroup 16x8",
  "subgroup 32x4",
  "subgroup 32x8",
  "subgroup 64x4",
  "subgroup 32x16",
  "subgroup 64x8",
  "workgroup 4x4",
  "workgroup 8x8",
];

/** All tiles, by name. */
export const TILES: ReadonlyMap<TileName, Tile> = new Map(NAMES.map((name) => [name, parse(name)]));

function parse(name: string): Tile {
  const [, sharing, rows, columns] = /^(\w+) (\d+)x(\d+)$/.exec(name)!;
  return { sharing: sharing as Tile["sharing"], rows: Number(rows), columns: Number(columns) };
}

/** Products that share a choice of tile: the same layout and a similar size. */
export type ProductClass = `${Layout}, ${"few rows" | "few columns" | "small" | "large"}`;

/** Up to this many rows or columns count as few. */
const FEW = 16;

/**
 * Multiply-adds from which a product counts as large: a big tile then soon makes up for the time it takes to compile. A
 * big tile compiles quickly only if the number of terms is a multiple of four.
 */
const LARGE = 2 ** 28;

/** The class of a shape. */
export function productClass({ layout, M, N, K }: ProductShape): ProductClass {
  if (M <= FEW) return `${layout}, few rows`;
  if (N <= FEW) return `${layout}, few columns`;
  return `${layout}, ${M * N * K >= LARGE && K % 4 === 0 ? "large" : "small"}`;
}

/** Whether a device can use a tile. Subgroups load vectors of A, so its rows must start at multiples of four. */
export function canUse(context: DeviceContext, { sharing }: Tile, aligned: boolean): boolean {
  return sharing !== "subgroup" || (aligned && context.subgroups !== undefined);
}

/** The tiles worth measuring for a class on this device. */
export function candidates(context: DeviceContext, of: ProductClass): TileName[] {
  return NAMES.filter((name) => {
    const tile = TILES.get(name)!;
    if (!canUse(context, tile, true)) return false;
    // An invocation of a GPU has 256 registers at most: sums and loads of larger tiles spill.
    if (context.lanes > 8 && tile.sharing === "register" && tile.rows * tile.columns > 64) return false;
    if (of.endsWith("few rows")) return tile.rows <= FEW && tile.sharing !== "workgroup";
    if (of.endsWith("few columns")) return tile.columns <= 8 && tile.sharing !== "workgroup";
    return tile.rows * tile.columns >= 64 || tile.sharing === "workgroup";
  });
}

/** The tile of a product: the measured choice if there is one and it can be used, otherwise the default. */
export function chosenTile(context: DeviceContext, shape: ProductShape, aligned: boolean): TileName {
  const of = productClass(shape);
  const measured = context.tuned.get(of) as TileName | undefined;
  if (measured !== undefined && canUse(context, TILES.get(measured)!, aligned)) return measured;
  return defaultTile(context, of, aligned);
}

/**
 * The tile used without a measurement. For software drivers, measured on Mesa 22.3.6 and 25.0.7; the largest tiles only
 * with the compiler of 22.3.6, since that of 25.0.7 spills registers. For GPUs, untested.
 */
export function defaultTile(context: DeviceContext, of: ProductClass, aligned: boolean): TileName {
  const [isLarge, isTall, isFlat] = [of.endsWith("large"), of.endsWith("few columns"), of.endsWith("few rows")];
  const bearsLarge = /\bLLVM 15\b/.test(context.device.adapterInfo?.description ?? "");
  if (aligned && context.subgroups !== undefined) {
    if (isFlat) return "subgroup 8x8";
    if (isTall || context.textureCopyBytes < Infinity) return "subgroup 32x4";
    return isLarge && bearsLarge ? "subgroup 64x8" : "subgroup 32x8";
  }
  if (context.lanes > 8 && !isTall && !isFlat) return "workgroup 4x4";
  return isLarge && bearsLarge && aligned ? "register 16x16" : "register 8x8";
}

/** Neighbouring columns of C that share a maximum. */
export const MAXIMA_COLUMNS = 8;

/** Invocations of a subgroup that loads A together. */
export const SUBGROUP = 8;
/** Side of the square of invocations that loads A and B together. */
export const SIDE = 16;

/** Rows and columns of C that a workgroup computes. */
export function blockOf({ sharing, rows, columns }: Tile, lanes: number): { readonly M: number; readonly N: number } {
  return sharing === "workgroup" ? { M: SIDE * rows, N: SIDE * columns } : { M: rows, N: lanes * columns };
}

/** Whether a tile can write maxima: an invocation must hold all columns that share a maximum, and rows in fours. */
export function canHaveMaxima(layout: Layout, tile: Tile): boolean {
  return tile.columns % MAXIMA_COLUMNS === 0 && tile.rows % 4 === 0 && !isSpread(layout, tile);
}

/** A tile that can write maxima, on any device. */
export function maximaTile(context: DeviceContext, aligned: boolean): TileName {
  return canUse(context, TILES.get("subgroup 32x8")!, aligned) ? "subgroup 32x8" : "register 8x8";
}

/** Whether the columns of an invocation lie apart, so that neighbours read from different banks of workgroup memory. */
export function isSpread(layout: Layout, { sharing }: Tile): boolean {
  return layout === "nt" && sharing === "workgroup";
}
