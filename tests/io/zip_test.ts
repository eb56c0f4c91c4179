/** `io/zip.ts` and `io/zip_writer.ts`: archives as PyTorch writes them, and archives made to do harm. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import * as fc from "fast-check";
import { CheckpointError } from "../../io/errors.ts";
import { bytesSource, type FilePart, joinBytes, type LazyBytes, partPieces, type Source } from "../../io/source.ts";
import { readZip } from "../../io/zip.ts";
import { MAX_32 } from "../../io/zip_format.ts";
import { formatDeflatedZip, formatZip, layoutZip, zipRecord } from "../../io/zip_writer.ts";
import { Random } from "../support/random.ts";
import { joined, type RawEnd, type RawRecord, rawZip, utf8 } from "./raw_zip.ts";

fc.configureGlobal({ seed: 0 });

const RECORDS: readonly RawRecord[] = [{ name: "a/one", bytes: utf8("first") }, {
  name: "a/two",
  bytes: utf8("second"),
}];

/** Every record of an archive. */
async function readAll(bytes: Uint8Array): Promise<Map<string, Uint8Array>> {
  const records = new Map<string, Uint8Array>();
  for (const [name, member] of await readZip(bytesSource(bytes))) records.set(name, await member.read());
  return records;
}

async function contents(bytes: Uint8Array): Promise<[string, string][]> {
  return [...await readAll(bytes)].map(([name, content]) => [name, new TextDecoder().decode(content)]);
}

const EXPECTED: [string, string][] = [["a/one", "first"], ["a/two", "second"]];

Deno.test("an archive reads back, each record aligned to 64 bytes", async () => {
  const records = fc.uniqueArray(
    fc.tuple(fc.string({ unit: "grapheme", maxLength: 80 }), fc.uint8Array({ maxLength: 200 })),
    { selector: ([name]) => name, maxLength: 12 },
  );
  await fc.assert(fc.asyncProperty(records, async (records) => {
    const bytes = joinBytes(formatZip(records.map(([name, content]) => zipRecord(name, content))));
    const read = await readAll(bytes);
    assertEquals([...read.keys()], records.map(([name]) => name));
    for (const [name, content] of records) {
      assertEquals(read.get(name), content);
      assertEquals(read.get(name)!.byteOffset % 64, 0);
      assertEquals(read.get(name)!.buffer, bytes.buffer);
    }
  }));
});

Deno.test("plain archives of other writers are read", async () => {
  assertEquals(await contents(rawZip(RECORDS)), EXPECTED);
  assertEquals(await contents(rawZip([])), []);
  assertEquals(await contents(rawZip(RECORDS, { comment: utf8("a comment with PK\x05\x06 in it") })), EXPECTED);
  assertEquals(await contents(rawZip(RECORDS, { zip64: {} })), EXPECTED);
  const wide = RECORDS.map((record) => ({ ...record, size: BigInt(record.bytes.length) }));
  assertEquals(
    await contents(rawZip(wide, { zip64: {}, count: 0xffff, size: 0xffffffff, offset: 0xffffffff })),
    EXPECTED,
  );
  const described = RECORDS.map((record) => ({ ...record, flags: 0x0808, localSize: 0 }));
  assertEquals(await contents(rawZip(described)), EXPECTED);
});

Deno.test("hostile archives are refused", async () => {
  const one = (record: Partial<RawRecord>, end?: RawEnd): Uint8Array =>
    rawZip([{ ...RECORDS[0]!, ...record }, RECORDS[1]!], end);
  const good = rawZip(RECORDS);
  const refused: [bytes: Uint8Array, message: string][] = [
    [new Uint8Array(), "not a zip archive"],
    [new Uint8Array(21), "not a zip archive"],
    [new Uint8Array(100_000), "not a zip archive"],
    [joined([good, Uint8Array.of(0)]), "not a zip archive"],
    [joined([Uint8Array.of(0), good]), "does not end"],
    [one({ method: 8 }), `record "a/one" is compressed (method 8)`],
    [one({ method: 8, size: 2 ** 31, storedSize: 5 }), "compressed"],
    [one({ flags: 1 }), "encrypted"],
    [one({ flags: 0x2000 }), "unknown flags"],
    [one({ name: "a/two", localName: "a/two" }), `record "a/two" appears twice`],
    [one({ localName: "a/six" }), "contradicts the directory"],
    [one({ localFlags: 8 }), "contradicts the directory"],
    [one({ localSize: 4 }), "contradicts the directory"],
    [one({ localSize: 0 }), "contradicts the directory"],
    [one({ crc: 1 }), `record "a/one" is damaged`],
    [one({ size: 4 }), "contradicts the directory"],
    [one({ size: 5, storedSize: 6 }), "is stored in 6 bytes but claims 5"],
    [one({ size: 2n ** 63n }), "beyond 2^53"],
    [one({ size: 2n ** 64n - 1n }), "beyond 2^53"],
    [one({ size: 2n ** 52n, localSize: 0xffffffff }), "reaches past the end of the archive"],
    [one({ size: 2 ** 31, localSize: 2 ** 31 }), "reaches past the end of the archive"],
    [one({ size: 0xffffffff }), "lacks the zip64 field for its size"],
    [one({ offset: 2n ** 63n }), "beyond 2^53"],
    [one({ offset: 2n ** 40n }), "is not at 1099511627776"],
    [one({ offset: 3 }), `record "a/two" overlaps`],
    [rawZip([{ ...RECORDS[0]!, localName: "a/one more", offset: 1 }]), "is not at 1"],
    [one({ offset: good.length - 4 }), "is not at"],
    [one({ disk: 1 }), "on another disk"],
    [rawZip(RECORDS, { disk: 1 }), "several parts"],
    [rawZip(RECORDS, { count: 3 }), "has 2 records; the archive says 3"],
    [rawZip(RECORDS, { count: 1 }), "has 2 records; the archive says 1"],
    [rawZip(RECORDS, { size: 10 }), "does not end"],
    [rawZip(RECORDS, { offset: 0 }), "does not end"],
    [rawZip(RECORDS, { offset: 0, size: 0xffffffff }), "does not end"],
    [rawZip([], { offset: 0xffffffff }), "does not end"],
    [joined([new Uint8Array(28).fill(0), rawZip([], { zip64: {} }).subarray(56)]), "not where its locator says"],
    [rawZip(RECORDS, { zip64: { place: 0n } }), "not where its locator says"],
    [rawZip(RECORDS, { zip64: { place: 2n ** 63n } }), "beyond 2^53"],
    [rawZip(RECORDS, { zip64: { count: 3n } }), "contradicts the end record"],
    [rawZip(RECORDS, { zip64: { offset: 2n ** 63n } }), "beyond 2^53"],
    [rawZip(RECORDS, { zip64: { size: 2n ** 52n }, size: 0xffffffff }), "does not end"],
    [rawZip(RECORDS, { zip64: { count: 2n ** 52n }, count: 0xffff }), "has 2 records"],
    [new Uint8Array([...new Uint8Array(20).fill(0), ...rawZip([])]), "does not end"],
  ];
  for (const [bytes, message] of refused) await assertRejects(() => readAll(bytes), CheckpointError, message);
});

Deno.test("the number of records is limited", async () => {
  // Only the directory is read; the empty records before it may be anything.
  const archive = (count: number): Source => {
    const directory = new Uint8Array(count * 51);
    const view = new DataView(directory.buffer);
    for (let i = 0, at = 0; i < count; i++, at += 51) {
      view.setUint32(at, 0x02014b50, true);
      view.setUint16(at + 28, 5, true);
      view.setUint32(at + 42, i * 35, true);
      directory.set(utf8(String(i).padStart(5)), at + 46);
    }
    const counts = {
      count: 0xffff,
      size: directory.length,
      offset: count * 35,
      zip64: {
        count: BigInt(count),
        size: BigInt(directory.length),
        offset: BigInt(count * 35),
        place: BigInt(count * 86),
      },
    };
    return bytesSource(joined([new Uint8Array(count * 35), directory, rawZip([], counts)]));
  };
  assertEquals((await readZip(archive(2 ** 16))).size, 2 ** 16);
  await assertRejects(() => readZip(archive(2 ** 16 + 1)), CheckpointError, "more than 65536 records");
});

Deno.test("records that share bytes are refused", async () => {
  const inner = { name: "a/two", bytes: utf8("x") };
  const innerBytes = rawZip([inner]).subarray(0, 30 + 5 + 1);
  const outer: RawRecord = { name: "a/one", bytes: innerBytes };
  const nested = rawZip([outer, { ...inner, offset: 30 + 5 }]);
  await assertRejects(() => readAll(nested), CheckpointError, `record "a/two" overlaps`);
  const twice = rawZip([RECORDS[0]!, { ...RECORDS[0]!, name: "b/one", localName: "a/one", offset: 0 }]);
  await assertRejects(() => readAll(twice), CheckpointError);
});

Deno.test("a name that is not UTF-8 is refused", async () => {
  const bytes = rawZip([{ name: "abc", bytes: utf8("x") }]);
  for (let i = 0; i < bytes.length; i++) if (bytes[i] === 0x61) bytes[i] = 0xff;
  await assertRejects(() => readAll(bytes), CheckpointError, "not UTF-8");
});

Deno.test("every truncation is refused, and nothing else happens", async () => {
  for (
    const bytes of [rawZip(RECORDS), rawZip(RECORDS, { zip64: {} }), joinBytes(formatZip([zipRecord("a", utf8("b"))]))]
  ) {
    for (let length = 0; length < bytes.length; length++) {
      await assertRejects(() => readAll(bytes.subarray(0, length)), CheckpointError);
    }
    await readAll(bytes);
  }
});

Deno.test("any bytes in place of any part are refused or read, and nothing else happens", async () => {
  const bytes = joinBytes(formatZip([zipRecord("a", utf8("b")), zipRecord("c", utf8("d"))]));
  const change = fc.tuple(fc.nat(bytes.length - 1), fc.uint8Array({ minLength: 1, maxLength: 12 }));
  await fc.assert(
    fc.asyncProperty(change, async ([at, patch]) => {
      const changed = bytes.slice();
      changed.set(patch.subarray(0, bytes.length - at), at);
      try {
        await readAll(changed);
      } catch (error) {
        assert(error instanceof CheckpointError, String(error));
      }
    }),
    { numRuns: 3000 },
  );
});

Deno.test("records and places beyond 4 GiB get zip64 fields", () => {
  const GiB = 2 ** 30;
  const { heads, tails, directory } = layoutZip([
    { name: "big", size: 5 * GiB, crc32: 7 },
    { name: "far", size: 3, crc32: 8 },
  ]);
  const head = new DataView(heads[0]!.buffer);
  assertEquals([head.getUint32(18, true), head.getUint32(22, true)], [0xffffffff, 0xffffffff]);
  assertEquals([head.getUint16(33, true), head.getUint16(35, true)], [1, 16]);
  assertEquals([head.getBigUint64(37, true), head.getBigUint64(45, true)], [BigInt(5 * GiB), BigInt(5 * GiB)]);
  const tail = new DataView(tails[0]!.buffer);
  assertEquals([tails[0]!.length, tail.getBigUint64(8, true)], [24, BigInt(5 * GiB)]);

  const offset = heads[0]!.length + 5 * GiB + 24;
  assertEquals((offset + heads[1]!.length) % 64, 0);
  assertEquals(tails[1]!.length, 16);
  const view = new DataView(directory.buffer);
  assertEquals([view.getUint32(20, true), view.getUint32(24, true), view.getUint16(30, true)], [
    0xffffffff,
    0xffffffff,
    20,
  ]);
  assertEquals(view.getBigUint64(46 + 3 + 4, true), BigInt(5 * GiB));
  const second = 46 + 3 + 20;
  assertEquals([view.getUint32(second + 24, true), view.getUint32(second + 42, true)], [3, 0xffffffff]);
  assertEquals(view.getBigUint64(second + 46 + 3 + 4, true), BigInt(offset));
  const end = second + 46 + 3 + 12;
  const start = offset + heads[1]!.length + 3 + 16;
  assertEquals(view.getBigUint64(end + 48, true), BigInt(start));
  assertEquals(view.getBigUint64(end + 56 + 8, true), BigInt(start + end));
  assertEquals(view.getUint32(end + 76 + 16, true), 0xffffffff);
});

/** So many bytes, in pieces of a length. */
function pieced(bytes: Uint8Array, length: number): LazyBytes {
  return {
    length: bytes.length,
    async *pieces() {
      for (let at = 0; at < bytes.length; at += length) yield await Promise.resolve(bytes.subarray(at, at + length));
    },
  };
}

async function collected(parts: readonly FilePart[]): Promise<Uint8Array> {
  return joinBytes(await Array.fromAsync(partPieces(parts)));
}

Deno.test("deflated records come back, and their pieces change no byte", async () => {
  const numbers = new Uint8Array(new Random(3).normal(400_000).buffer);
  const zeros = new Uint8Array(3_000_000);
  const written: Uint8Array[] = [];
  for (const length of [999_983, 65_536]) {
    const zip = formatDeflatedZip([
      { name: "numbers", parts: [utf8("head"), pieced(numbers, length)] },
      { name: "empty", parts: [] },
      { name: "zeros ü", parts: [pieced(zeros, length)] },
    ]);
    written.push(await collected([zip]));
    assert(written.at(-1)!.length <= zip.length, "no more than was said");
  }
  assertEquals(written[1], written[0]);
  await assertRejects(() => readZip(bytesSource(written[0]!)), CheckpointError, "is compressed (method 8)");
  const members = await readZip(bytesSource(written[0]!), { allowDeflated: true });
  assertEquals([...members.keys()], ["numbers", "empty", "zeros ü"]);
  assertEquals(await members.get("numbers")!.read(), joinBytes([utf8("head"), numbers]));
  assertEquals(await members.get("empty")!.read(), new Uint8Array());
  assertEquals(await members.get("zeros ü")!.read(), zeros);
  assert(written[0]!.length < 1.05 * numbers.length, "zeros take next to nothing");
});

Deno.test("a deflated record of another length than was said is an error", async () => {
  const { pieces } = pieced(new Uint8Array(10), 10);
  await assertRejects(
    () => collected([formatDeflatedZip([{ name: "a", parts: [{ length: 11, pieces }] }])]),
    RangeError,
    "writing record a: found 10 bytes; expected 11",
  );
});

Deno.test("a deflated record that may go beyond 4 GiB has zip64 fields from the start", async () => {
  // Its header is written before its content, which then ends the test.
  const endless = formatDeflatedZip([{ name: "big", parts: [{ length: 2 ** 32 - 1000, pieces: () => failing() }] }]);
  const pieces = endless.pieces()[Symbol.asyncIterator]();
  const { value: head } = await pieces.next();
  const view = new DataView(head.buffer);
  assertEquals([view.getUint16(8, true), view.getUint32(18, true), view.getUint32(22, true)], [8, MAX_32, MAX_32]);
  assertEquals([view.getUint16(33, true), view.getUint16(35, true)], [1, 16]);
  await assertRejects(async () => await pieces.next(), Error, "no content");
});

async function* failing(): AsyncGenerator<Uint8Array> {
  yield await Promise.reject(new Error("no content"));
}
