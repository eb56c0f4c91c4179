/**
 * An image with the activations of a latent on its patches in colours of even lightness.
 *
 * @module
 */

import type { VNode } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { short } from "./format.ts";

/** Inferno at equal steps: colours whose lightness rises evenly. */
const COLOURS = [
  [0, 0, 4],
  [31, 12, 72],
  [85, 15, 109],
  [136, 34, 106],
  [186, 54, 85],
  [227, 89, 51],
  [249, 140, 10],
  [249, 201, 50],
  [252, 255, 164],
] as const;

/** Red, green and blue of a share of the largest activation. */
function colourOf(share: number): readonly number[] {
  const place = share * (COLOURS.length - 1);
  const [low, part] = [COLOURS[Math.floor(place)]!, place % 1];
  return COLOURS[Math.ceil(place)]!.map((to, i) => Math.round(low[i]! + part * (to - low[i]!)));
}

/** Draws [patches] bytes over an image. Silent patches are clear. */
export function HeatMap({ src, alt, heat, grid }: {
  readonly src: string;
  readonly alt: string;
  /** Base64 of a byte for each patch. */
  readonly heat: string;
  readonly grid: { readonly height: number; readonly width: number };
}): VNode {
  const canvas = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    const context = canvas.current!.getContext("2d")!;
    const pixels = context.createImageData(grid.width, grid.height);
    for (const [patch, character] of [...atob(heat)].entries()) {
      const byte = character.charCodeAt(0);
      if (byte > 0) pixels.data.set([...colourOf(byte / 255), 255], 4 * patch);
    }
    context.putImageData(pixels, 0, 0);
  }, [heat]);
  return (
    <div class="heat" style={{ aspectRatio: `${grid.width} / ${grid.height}` }}>
      <img src={src} alt={alt} loading="lazy" />
      <canvas ref={canvas} width={grid.width} height={grid.height} aria-hidden="true" />
    </div>
  );
}

/** What the colours mean: from 0 to the largest activation of the latent. */
export function HeatLegend({ max }: { readonly max: number }): VNode {
  const stops = COLOURS.map((colour) => `rgb(${colour.join(" ")})`).join(", ");
  return (
    <div class="legend" role="img" aria-label={`Colours from 0, dark, to ${short(max)}, bright`}>
      <span>0</span>
      <i style={{ background: `linear-gradient(90deg, ${stops})` }} />
      <span>{short(max)}</span>
    </div>
  );
}
