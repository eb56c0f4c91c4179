/** One process a run: locks of this machine, of others, and what is no lock. @module */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { RunLock } from "../../runner/run_lock.ts";

async function inFolder(test: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempDir();
  try {
    await test(path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

/** What a process left that could not clean up. */
async function leave(path: string, host: string | null): Promise<number> {
  await Deno.writeTextFile(`${path}/run.lock`, JSON.stringify({ saev_nn_lock: 1, host, pid: 7, id: "old" }));
  return (await Deno.stat(`${path}/run.lock`)).mtime!.getTime();
}

Deno.test("a folder is one process's until that lets it go", () =>
  inFolder(async (path) => {
    {
      await using lock = await RunLock.take(path, { host: "here" });
      await lock.assertHeld();
      const inUse = `${path} is in use by process ${Deno.pid} on here; wait until it ends`;
      await assertRejects(() => RunLock.take(path, { host: "here" }), RangeError, inUse);
      // Where the lock reaches another machine, its heartbeat does not matter.
      await assertRejects(() => RunLock.take(path, { host: "there", now: () => 1e15 }), RangeError, inUse);
      await assertRejects(() => RunLock.check(path, { host: "here" }), RangeError, inUse);
    }
    assertEquals(await Array.fromAsync(Deno.readDir(path)), []);
    await RunLock.check(path);
    assertEquals(await Array.fromAsync(Deno.readDir(path)), []);
    await using _ = await RunLock.take(path, { host: "here" });
  }));

Deno.test("the heart beats while this thread computes", () =>
  inFolder(async (path) => {
    await using _ = await RunLock.take(path, { heartbeatMs: 5 });
    const beaten = () => Deno.statSync(`${path}/run.lock`).mtime!.getTime();
    const first = beaten();
    const cell = new Int32Array(new SharedArrayBuffer(4));
    while (beaten() === first) Atomics.wait(cell, 0, 0, 5);
  }));

Deno.test("a process of this machine that was killed is known to be gone", () =>
  inFolder(async (path) => {
    await leave(path, "here");
    const said: string[] = [];
    await using _ = await RunLock.take(path, { host: "here", say: (line) => said.push(line) });
    assertEquals(said, []);
  }));

for (const host of ["there", null]) {
  Deno.test(`another machine's lock is stale after ten heartbeats: ${host}`, () =>
    inFolder(async (path) => {
      const left = await leave(path, host);
      const said: string[] = [];
      const take = (ms: number) =>
        RunLock.take(path, { host: host && "here", now: () => left + ms, say: (line) => said.push(line) });
      const name = host ?? "an unnamed machine";
      await assertRejects(
        () => take(99_400),
        RangeError,
        `${path} is in use by process 7 on ${name}, whose last heartbeat was 99 s ago. If that process has ended, try again`,
      );
      // A clock that is behind takes nobody for dead.
      await assertRejects(() => take(-5000), RangeError, "whose last heartbeat was 0 s ago");
      await assertRejects(() => RunLock.check(path, { host: "here", now: () => left }), RangeError, "is in use");
      assertEquals(said, []);
      await using _ = await take(100_000);
      assertEquals(said, [
        `${path}: the lock of process 7 on ${name}, whose last heartbeat was 100 s ago, is stale; taking it over`,
      ]);
    }));
}

Deno.test("who was taken for dead writes no more, and leaves the lock to the other", () =>
  inFolder(async (path) => {
    {
      await using lock = await RunLock.take(path, { host: "slept" });
      await leave(path, "here");
      const error = await assertRejects(() => lock.assertHeld(), RangeError);
      assert(error.message.includes(": process 7 on here does"), error.message);
    }
    assertEquals(JSON.parse(await Deno.readTextFile(`${path}/run.lock`)).id, "old");
  }));

Deno.test("a file that is no lock stays", () =>
  inFolder(async (path) => {
    for (const text of ["mine", "{}", '{ "saev_nn_lock": 2 }', "[1]"]) {
      await Deno.writeTextFile(`${path}/run.lock`, text);
      await assertRejects(() => RunLock.take(path), RangeError, "is not a saev lock file; move it");
      assertEquals(await Deno.readTextFile(`${path}/run.lock`), text);
    }
  }));

Deno.test("a successor waits until the lock of its predecessor on another machine is stale, and no longer", () =>
  inFolder(async (path) => {
    const left = await leave(path, "there");
    const said: string[] = [];
    let time = left;
    const patient = (patienceMs: number) =>
      RunLock.take(path, {
        host: "here",
        now: () => time,
        patienceMs,
        sleep: (ms) => {
          time += ms;
          return Promise.resolve();
        },
        say: (line) => said.push(line),
      });
    await assertRejects(() => patient(50_000), RangeError, "is in use by process 7 on there");
    assertEquals(time, left + 50_000);
    await using _ = await patient(200_000);
    assertEquals(time, left + 100_000);
    assertEquals(said.map((line) => line.split(" ")[0]), ["waiting:", "waiting:", `${path}:`]);
  }));
