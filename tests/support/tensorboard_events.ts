/**
 * An event file of every kind of event that is written, and its bytes as `tests/interop/check_tensorboard.py` had
 * TensorBoard's own reader accept them.
 *
 * @module
 */
import { type EventContent, eventRecord } from "../../io/tensorboard.ts";

/** The events by their steps. */
const EVENTS: readonly [step: number, content: EventContent][] = [
  [0, { fileVersion: true }],
  [25, { scalars: { "train/loss": 0.5, "train/l0": 32 } }],
  [50, { scalars: { "train/loss": 0.25 } }],
  // Step 50 is made again.
  [26, { restart: true }],
  [50, {
    scalars: { "train/loss": 0.125 },
    histograms: {
      "validation/log10_density": {
        min: -2.5,
        max: -0.25,
        num: 6,
        sum: -9,
        sumSquares: 15.5,
        bucketLimit: [-2.25, -2, -1],
        bucket: [1, 2, 3],
      },
    },
  }],
  [1_000_000, { scalars: { "train/loss": 1e-9 } }],
];

/** The file. */
export function writtenEvents(): Uint8Array {
  const records = EVENTS.map(([step, content], i) => eventRecord({ wallTime: 1_700_000_000 + i / 2, step }, content));
  return Uint8Array.from(records.flatMap((record) => [...record]));
}

/** Its bytes. */
export const TENSORBOARD_EVENTS: string = [
  "1800000000000000a37f4b220900000040fc54d9411a0d627261696e2e4576656e743a32eced8f9d31000000000000009d8383e9090000",
  "2040fc54d94110192a240a110a0a747261696e2f6c6f7373150000003f0a0f0a08747261696e2f6c3015000000428b7be8032000000000",
  "00000029eda9500900004040fc54d94110322a130a110a0a747261696e2f6c6f7373150000803e7bca9ab70f000000000000006d532b09",
  "0900006040fc54d941101a3a02080186d82455a0000000000000002a5572250900008040fc54d94110322a92010a110a0a747261696e2f",
  "6c6f7373150000003e0a7d0a1876616c69646174696f6e2f6c6f6731305f64656e736974792a610900000000000004c011000000000000",
  "d0bf1900000000000018402100000000000022c0290000000000002f40321800000000000002c000000000000000c0000000000000f0bf",
  "3a18000000000000f03f0000000000000040000000000000084093bbb0d1220000000000000078113dfd090000a040fc54d94110c0843d",
  "2a130a110a0a747261696e2f6c6f7373155f708930d5e1f454",
].join("");
