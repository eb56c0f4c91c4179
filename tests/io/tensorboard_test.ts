/** Event files: checksums, records, and bytes that TensorBoard's own reader has accepted. @module */
import { assertEquals } from "@std/assert";
import { crc32c, eventRecord, wholeRecords } from "../../io/tensorboard.ts";
import { TENSORBOARD_EVENTS, writtenEvents } from "../support/tensorboard_events.ts";

Deno.test("CRC-32C is that of RFC 3720", () => {
  const check = (bytes: ArrayLike<number>) => crc32c(Uint8Array.from(bytes)).toString(16);
  assertEquals(check(new TextEncoder().encode("123456789")), "e3069283");
  assertEquals(check(new Uint8Array(32)), "8a9136aa");
  assertEquals(check(new Uint8Array(32).fill(0xff)), "62a8ab43");
  assertEquals(check(Array.from({ length: 32 }, (_, i) => i)), "46dd794e");
});

Deno.test("events are the bytes that TensorBoard reads back", () => {
  assertEquals(writtenEvents().toHex(), TENSORBOARD_EVENTS);
});

/** A file in pieces of so many bytes. */
async function* inPieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield await Promise.resolve(bytes.subarray(at, at + size));
}

Deno.test("records that are whole are found however a file is read, cut off or damaged", async () => {
  const records = [
    eventRecord({ wallTime: 1, step: 0 }, { fileVersion: true }),
    eventRecord({ wallTime: 2, step: 300 }, { scalars: { "train/loss": 0.5 } }),
    eventRecord({ wallTime: 3, step: 301 }, { restart: true }),
  ];
  const bytes = Uint8Array.from(records.flatMap((record) => [...record]));
  const ends = records.map((_, i) => records.slice(0, i + 1).reduce((sum, { length }) => sum + length, 0));
  const wholeAt = (end: number) => ends.findLast((one) => one <= end) ?? 0;
  for (let end = 0; end <= bytes.length; end++) {
    assertEquals(await wholeRecords(inPieces(bytes.subarray(0, end), 7)), wholeAt(end), `cut off at ${end}`);
  }
  for (let at = 0; at < bytes.length; at++) {
    const damaged = bytes.slice();
    damaged[at]! ^= 0x10;
    assertEquals(await wholeRecords(inPieces(damaged, 1000)), wholeAt(at), `damaged at ${at}`);
  }
});
