/**
 * How products with a sparse factor divide the columns of a dense row among workgroups and invocations.
 *
 * @module
 */

import type { DeviceContext } from "./engine/device.ts";
import type { Kernel } from "./engine/kernel.ts";
import { vectorWidth } from "./engine/vector_width.ts";
import type { RowLayout } from "./row_layout.ts";

/**
 * Terms of a sum in one dispatch; the next dispatch continues longer sums. A software driver silently ends an invocation's
 * loops after 65,535 turns in all: one for each term (two for each eight where lanes load them together), and the few turns
 * of bisections and of parts.
 */
export const MAX_TERMS = 50000;

/**
 * The most loads of a row that one invocation owns: they share each load of an entry's index and value. A software driver
 * keeps them in its cache, a GPU in registers.
 */
const MAX_UNROLL = { software: 24, gpu: 8 };

/** How the columns of a row are divided among workgroups and invocations. */
export interface RowShare extends RowLayout {
  /** Invocations of a workgroup. */
  readonly lanes: number;
  /** Loads of a row that each invocation owns. */
  readonly unroll: number;
}

/** As few workgroups a row as possible, then as few loads an invocation as that takes: one, two, or a multiple of four. */
function shareOf(columns: number, { lanes, subgroups }: DeviceContext): RowShare {
  const width = vectorWidth(columns);
  const each = Math.ceil(columns / width.scalars / lanes);
  const groups = Math.ceil(each / (lanes === 8 ? MAX_UNROLL.software : MAX_UNROLL.gpu));
  const own = Math.ceil(each / groups);
  return { ...width, lanes, subgroups, unroll: own <= 2 ? own : 4 * Math.ceil(own / 4) };
}

/** How many workgroups share the columns of a row. */
export function columnGroups(columns: number, { scalars, lanes, unroll }: RowShare): number {
  return Math.ceil(columns / scalars / (lanes * unroll));
}

/** One kernel for each share, declared on first use; returns the one for rows of `columns` on a device. */
export function perRowShare<D extends string, B extends string>(
  declare: (share: RowShare) => Kernel<D, never, B>,
): (columns: number, context: DeviceContext) => Kernel<D, never, B> {
  const made = new Map<string, Kernel<D, never, B>>();
  return (columns, context) => {
    const share = shareOf(columns, context);
    const id = JSON.stringify(share);
    const kernel = made.get(id) ?? declare(share);
    made.set(id, kernel);
    return kernel;
  };
}

/**
 * WGSL: `statement` for each load `c` that an invocation owns, at `offset` loads behind its `first`. Loads past the end of a
 * row are computed and not stored.
 */
export function everyColumn({ lanes, unroll }: RowShare, statement: (c: number, offset: string) => string): string {
  return Array.from({ length: unroll }, (_, c) => statement(c, `${c * lanes}u`)).join("\n  ");
}

/** WGSL: the `row` of this invocation, the number of its `loads`, and the `first` of them that the invocation owns. */
export const columnsOfLane = ({ scalars, lanes, unroll }: RowShare): string => `
  let loads = dims.columns / ${scalars}u;
  let groups_a_row = (loads + ${lanes * unroll - 1}u) / ${lanes * unroll}u;
  let row = group / groups_a_row;
  let first = (group % groups_a_row) * ${lanes * unroll}u + lane;`;
