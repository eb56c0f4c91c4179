/**
 * Draws steps as stacked bars, one colour per phase, in multiples of each step's own encoder product, as a
 * self-contained SVG.
 *
 * @module
 */

/** One step: its phases in order, as multiples of its encoder product. */
export interface Bar {
  /** Its label. */
  readonly label: string;
  /** Name and length of each part. */
  readonly parts: readonly (readonly [phase: string, length: number])[];
}

const COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#edc948", "#9c755f", "#e15759", "#76b7b2"];
const [WIDTH, LABELS, ROW, BAR, TOP] = [960, 300, 34, 22, 56];

/** Draws the bars to scale, under a legend of their phases. */
export function stackedBars(title: string, bars: readonly Bar[]): string {
  const phases = [...new Set(bars.flatMap(({ parts }) => parts.map(([phase]) => phase)))];
  const colour = (phase: string) => COLOURS[phases.indexOf(phase) % COLOURS.length]!;
  const longest = Math.max(...bars.map(total));
  const unit = (WIDTH - LABELS - 60) / longest;
  const legend = phases.map((phase, index) => {
    const x = 10 + index * ((WIDTH - 20) / phases.length);
    return `<rect x="${x}" y="32" width="10" height="10" fill="${colour(phase)}"/>${text(x + 14, 41, phase)}`;
  });
  const rows = bars.map((bar, row) => {
    const y = TOP + row * ROW;
    let x = LABELS;
    const rects = bar.parts.map(([phase, length]) => {
      const rect = `<rect x="${x.toFixed(1)}" y="${y}" width="${(length * unit).toFixed(1)}" height="${BAR}" fill="${
        colour(phase)
      }"><title>${escaped(`${phase} ${length.toFixed(2)}`)}</title></rect>`;
      x += length * unit;
      return rect;
    });
    return [text(10, y + 15, bar.label), ...rects, text(x + 6, y + 15, total(bar).toFixed(2))].join("");
  });
  const height = TOP + bars.length * ROW;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" ` +
    `font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>` +
    `<text x="10" y="20" font-size="14">${escaped(title)}</text>\n${[...legend, ...rows].join("\n")}\n</svg>\n`;
}

function total({ parts }: Bar): number {
  return parts.reduce((sum, [, length]) => sum + length, 0);
}

function text(x: number, y: number, content: string): string {
  return `<text x="${x.toFixed(1)}" y="${y}">${escaped(content)}</text>`;
}

function escaped(content: string): string {
  return content.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
