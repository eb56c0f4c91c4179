/**
 * Tables: plain ones, and those whose columns sort the rows.
 *
 * @module
 */

import type { ComponentChildren, VNode } from "preact";
import { useMemo, useState } from "preact/hooks";
import { short } from "./format.ts";

/** A table of plain values, which scrolls where it is wider than the page. */
export function DataTable({ columns, rows }: {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly (string | number | null)[])[];
}): VNode {
  return (
    <div class="wide" tabIndex={0} role="group" aria-label="table">
      <table>
        <thead>
          <tr>{columns.map((column) => <th key={column} scope="col">{column}</th>)}</tr>
        </thead>
        <tbody>
          {rows.map((row, i) => (
            <tr key={i}>
              {row.map((value, j) => (
                <td key={j} class={typeof value === "number" ? "number" : ""}>
                  {typeof value === "string" ? value : short(value, 4)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Names and values, a line each. */
export function NamedValues({ values }: { readonly values: readonly (readonly [string, string])[] }): VNode {
  return (
    <dl class="named">
      {values.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** A column that sorts. */
export interface SortedColumn<Row> {
  /** At its top. */
  readonly name: string;
  /** What the rows are sorted by; `null` goes last. */
  readonly by: (row: Row) => string | number | null;
  /** What is shown; what it is sorted by, if left out. */
  readonly shown?: (row: Row) => ComponentChildren;
}

/** The order of the rows of a table. */
export interface Order {
  /** The column. */
  readonly column: number;
  /** Largest first. */
  readonly isDescending: boolean;
}

/** A table whose columns sort the rows, one after the other as they are pressed. */
export function SortableTable<Row>({ label, columns, rows, keyOf, rowProps, start }: {
  readonly label: string;
  readonly columns: readonly SortedColumn<Row>[];
  readonly rows: readonly Row[];
  readonly keyOf: (row: Row) => string | number;
  readonly rowProps?: (row: Row) => Record<string, unknown>;
  readonly start: Order;
}): VNode {
  const [order, setOrder] = useState(start);
  const sorted = useMemo(() => rows.toSorted(comparison(columns[order.column]!, order)), [rows, columns, order]);
  return (
    <div class="wide" tabIndex={0} role="group" aria-label={label}>
      <table class="sortable">
        <thead>
          <tr>
            {columns.map(({ name }, i) => (
              <th
                key={name}
                scope="col"
                aria-sort={i !== order.column ? "none" : order.isDescending ? "descending" : "ascending"}
              >
                <button
                  type="button"
                  onClick={() => setOrder({ column: i, isDescending: i === order.column && !order.isDescending })}
                >
                  {name}
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {sorted.map((row) => (
            <tr key={keyOf(row)} {...rowProps?.(row)}>
              {columns.map(({ name, by, shown }) => (
                <td key={name} class={typeof by(row) === "number" ? "number" : ""}>
                  {shown ? shown(row) : textOf(by(row))}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function textOf(value: string | number | null): string {
  return typeof value === "string" ? value : short(value, 4);
}

function comparison<Row>({ by }: SortedColumn<Row>, { isDescending }: Order): (a: Row, b: Row) => number {
  return (one, other) => {
    const [a, b] = [by(one), by(other)];
    if (a === null || b === null) return Number(a === null) - Number(b === null);
    const ascending = typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), "en", { numeric: true });
    return isDescending ? -ascending : ascending;
  };
}
