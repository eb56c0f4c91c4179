/**
 * An image with the activations of a latent on its patches in colours of even lightness.
 *
 * @module
 */

import type { VNode } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { colourOf, INFERNO } from "../../colours.ts";
import { short } from "./format.ts";

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
  const stops = INFERNO.map((colour) => `rgb(${colour.join(" ")})`).join(", ");
  return (
    <div class="legend" role="img" aria-label={`Colours from 0, dark, to ${short(max)}, bright`}>
      <span>0</span>
      <i style={{ background: `linear-gradient(90deg, ${stops})` }} />
      <span>{short(max)}</span>
    </div>
  );
}
