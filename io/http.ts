/**
 * Files behind `http(s)` addresses, read by ranges.
 *
 * Temporary failures are tried four times: no answer or no further byte for 30 s, a broken connection, and the status
 * codes 429, 500, 502, 503 and 504. A broken range is resumed from where it broke. A file that changes between two
 * reads is an error: each answer must have the same entity tag (or else date) and length as the first.
 *
 * An address may hold a password or a signature. Messages show it without user, password, query and fragment, and
 * errors here have no cause, because the platform's own errors show the whole address.
 *
 * Protocol: RFC 9110, sections 13 and 14; `Retry-After`, section 10.2.3.
 *
 * @module
 */

import { type Clock, sleep, SYSTEM_CLOCK } from "./clock.ts";
import { CheckpointError, quote } from "./errors.ts";
import { buffered, bytesSource, checkRange, type Source } from "./source.ts";

/** Options for requests. */
export interface HttpOptions {
  /** The file's name in messages; its address as {@link shownAddress} shows it if left out. */
  readonly name?: string;
  /**
   * Sent as `Authorization: Bearer …` to the address's own origin only, never to a redirect target. Browsers hide
   * redirects from programs; there the Fetch standard guarantees this, and browsers follow it since 2023.
   */
  readonly token?: string;
  /** Aborts every request. */
  readonly signal?: AbortSignal;
  /** Called with the length of each piece that arrives. */
  readonly onBytes?: (count: number) => void;
  /** Called with one line before a retry. */
  readonly onNotice?: (line: string) => void;
  /** The addition to a message about an answer that is not a file. */
  readonly explain?: (answer: Pick<Answer, "status" | "headers">) => string;
  /** Largest answer, in bytes, that is kept in memory or gives no length; 1 GiB if left out. */
  readonly maxBytes?: number;
  /** Stores an answer of a server without ranges, so that it need not stay in memory. */
  readonly store?: (whole: WholeAnswer) => Promise<Source>;
  /** The platform's clock if left out. */
  readonly clock?: Clock;
}

/** {@link HttpOptions} with a name. */
export type NamedOptions = HttpOptions & { readonly name: string };

/** All bytes of a file, as they arrive. */
export interface WholeAnswer {
  /** Its entity tag, as the server gives it. */
  readonly etag: string | null;
  /** What a hub reports about it. */
  readonly linked: LinkedFile;
  /** Its length, if the server gives it. */
  readonly size: number | null;
  /** The bytes, which can be read once. */
  readonly pieces: AsyncIterable<Uint8Array>;
}

/** What a hub reports about a file before it redirects to the bytes; `null` for missing parts. */
export interface LinkedFile {
  /** `X-Linked-ETag` */
  readonly etag: string | null;
  /** `X-Linked-Size` */
  readonly size: number | null;
  /** `X-Repo-Commit` */
  readonly commit: string | null;
}

/** A server answered, but not with the file. */
export class StatusError extends CheckpointError {
  /** The answer's status code. */
  readonly status: number;

  /** An answer with that status code. */
  constructor(message: string, status: number) {
    super(message);
    this.status = status;
  }
}

/** A file on a server. */
export interface RemoteSource extends Source {
  /** Its entity tag, as the server gives it. */
  readonly etag: string | null;
  /** What a hub reports about it. */
  readonly linked: LinkedFile;
  /** Whether {@link HttpOptions.store} took the bytes. */
  readonly isStored: boolean;
  /** The bytes from `from` to `to` (exclusive), as they arrive. */
  stream(from: number, to: number): AsyncIterable<Uint8Array>;
}

/** The size of the first request; most headers and directories lie within it. */
const FIRST_BYTES = 2 ** 16;
/** The limit for an answer in memory, or of unknown length. */
const MAX_BYTES = 2 ** 30;
const MAX_REDIRECTS = 10;
/** How often a connection that breaks after some bytes is reopened. */
const MAX_BREAKS = 100;
/** Number of tries for temporary failures. */
const TRIES = 4;
/** Milliseconds without an answer or a further byte. */
const IDLE = 30_000;
/** Milliseconds before the second try; doubled before each further one. */
const FIRST_PAUSE = 1000;
/** The longest wait, in milliseconds, that a server may ask for. */
const MAX_PAUSE = 300_000;
/** Status codes of temporary failures. */
const PASSING = [429, 500, 502, 503, 504];

/** An address as messages show it: without user, password, query and fragment. Other text is returned unchanged. */
export function shownAddress(address: string | URL): string {
  const text = String(address);
  if (!/^(?!hf:)[a-z][a-z\d+.-]*:\/\//i.test(text)) return text;
  if (!/^https?:/i.test(text) || !URL.canParse(text)) return text.replace(/[?#].*/s, "").replace(/\/\/[^/]*@/, "//");
  const { origin, pathname } = new URL(text);
  return `${origin}${pathname}`;
}

/**
 * Opens the file at an address with a request for its first bytes. In a page, the address may be relative to the
 * page's.
 *
 * @throws {CheckpointError} if the server answers with anything but the file.
 * @throws {TypeError} if no server answers, or the address is invalid.
 */
export async function openHttp(address: string | URL, options: HttpOptions = {}): Promise<RemoteSource> {
  const url = webAddress(address);
  const named = { ...options, name: options.name ?? shownAddress(url) };
  const { name, maxBytes = MAX_BYTES } = named;
  return await persist(named, async () => {
    const answer = await request(url, rangeHeader(0, FIRST_BYTES), named);
    // In a page, the platform has decompressed it already; other platforms leave it as it is if asked.
    const packing = globalThis.location === undefined ? answer.headers.get("content-encoding") ?? "" : "";
    if (/\b(?:gzip|deflate|br|zstd|compress)\b/i.test(packing)) {
      await refuse(answer, name, `the server sends it compressed with ${quote(packing)}, although it was asked not to`);
    }
    const identity = identityOf(answer);
    switch (answer.status) {
      case 206: {
        const { size, end } = contentRange(answer, name);
        if (end !== Math.min(FIRST_BYTES, size)) await refuse(answer, name, `it sent bytes 0 to ${end} of ${size}`);
        const head = await readBody(answer, named, end);
        if (head.length < end) throw broken(name, "the connection ended", `${head.length} of ${end}`);
        refuseWebPage(head, url, name);
        return new RangedFile(url, named, identity, size, head);
      }
      case 200: {
        if (named.store === undefined) {
          const bytes = await readBody(answer, named, maxBytes);
          refuseWebPage(bytes, url, name);
          return wholeFile(bytesSource(bytes, name), identity);
        }
        const { etag, linked } = identity;
        const size = contentLength(answer);
        const pieces = checkedPieces(answer, named, { url, most: size ?? maxBytes });
        try {
          return wholeFile(await named.store({ etag, linked, size, pieces }), identity, true);
        } finally {
          // If the bytes were not wanted after all.
          await answer.cancel();
        }
      }
      case 416:
        // An empty file has no ranges.
        if (answer.headers.get("content-range") !== "bytes */0") await refuseStatus(answer, named);
        await answer.cancel();
        return wholeFile(bytesSource(new Uint8Array(), name), identity);
      default:
        return await refuseStatus(answer, named);
    }
  });
}

/** The address that a string means here. */
export function webAddress(address: string | URL): URL {
  const page = globalThis.location?.href;
  const url = URL.canParse(address, page) ? new URL(address, page) : null;
  if (url !== null && /^(?:https?|blob|data):$/.test(url.protocol)) return url;
  throw new TypeError(`reading ${quote(shownAddress(address))}: expected an http or https address`);
}

/** What must be the same in every answer, and what a hub reports. */
interface Identity {
  readonly etag: string | null;
  readonly lastModified: string | null;
  readonly linked: LinkedFile;
}

function identityOf({ headers, linked }: Answer): Identity {
  return { etag: headers.get("etag"), lastModified: headers.get("last-modified"), linked };
}

class RangedFile implements RemoteSource {
  readonly name: string;
  readonly size: number;
  readonly etag: string | null;
  readonly linked: LinkedFile;
  readonly isStored = false;
  readonly #url: URL;
  readonly #options: NamedOptions;
  readonly #identity: Identity;
  /** The first bytes, which came with the first answer. */
  readonly #head: Uint8Array;
  readonly #buffered: Source;

  constructor(url: URL, options: NamedOptions, identity: Identity, size: number, head: Uint8Array) {
    this.name = options.name;
    this.size = size;
    this.etag = identity.etag;
    this.linked = identity.linked;
    this.#url = url;
    this.#options = options;
    this.#identity = identity;
    this.#head = head;
    this.#buffered = buffered({ name: this.name, size, read: (from, to) => this.#read(from, to) }, head);
  }

  async read(from: number, to: number): Promise<Uint8Array> {
    return await this.#buffered.read(from, to);
  }

  async *stream(from: number, to: number): AsyncGenerator<Uint8Array> {
    checkRange(this, from, to);
    let at = Math.max(from, Math.min(to, this.#head.length));
    if (at > from) yield this.#head.subarray(from, at);
    let tries = 0;
    for (let breaks = 0; at < to; breaks++) {
      const start = at;
      try {
        const answer = await this.#ask(at, to);
        for await (const piece of answer.pieces()) {
          at += piece.length;
          if (at > to) fail(this.name, `it sent more than the ${to - start} bytes asked for`);
          this.#options.onBytes?.(piece.length);
          yield piece;
        }
        if (at < to) throw new Break("the connection ended");
      } catch (error) {
        const setback = error instanceof Break
          ? broken(this.name, error.message, `${at - from} of ${to - from}`)
          : error;
        if (!(setback instanceof Setback)) throw error;
        tries = at > start ? 1 : tries + 1;
        if (breaks === MAX_BREAKS) throw setback.error;
        await pause(this.#options, setback, tries);
      }
    }
  }

  async #read(from: number, to: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(to - from);
    let at = 0;
    for await (const piece of this.stream(from, to)) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return bytes;
  }

  async #ask(from: number, to: number): Promise<Answer> {
    const { name, size } = this;
    const { etag, lastModified } = this.#identity;
    const headers: Record<string, string> = rangeHeader(from, to);
    // A weak tag is not allowed here. A browser would first ask another origin whether it may send this header, which
    // many refuse; there the comparison below must do.
    if (etag !== null && !etag.startsWith("W/") && !isCrossOrigin(this.#url)) headers["if-range"] = etag;
    const answer = await request(this.#url, headers, this.#options);
    if (![200, 206, 416].includes(answer.status)) return await refuseStatus(answer, this.#options);
    const now = identityOf(answer);
    const isSame = now.etag === etag && (etag !== null || now.lastModified === lastModified);
    if (!isSame || answer.status !== 206) {
      return await refuse(
        answer,
        name,
        "the file changed while it was being read, or the server no longer serves ranges of it",
      );
    }
    const found = contentRange(answer, name);
    if (found.start !== from || found.end !== to || found.size !== size) {
      const [asked, sent] = [`${from} to ${to} of ${size}`, `${found.start} to ${found.end} of ${found.size}`];
      return await refuse(answer, name, `asked for bytes ${asked}, it sent ${sent}`);
    }
    return answer;
  }
}

function wholeFile(source: Source, { etag, linked }: Identity, isStored = false): RemoteSource {
  return {
    ...source,
    etag,
    linked,
    isStored,
    async *stream(from, to) {
      yield await source.read(from, to);
    },
  };
}

function rangeHeader(from: number, to: number): Record<string, string> {
  return { range: `bytes=${from}-${to - 1}` };
}

/** Parses `bytes 0-99/1234`; the end is exclusive. */
function contentRange(answer: Answer, name: string): { start: number; end: number; size: number } {
  const text = answer.headers.get("content-range") ?? "";
  const [start, last, size] = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16})$/.exec(text)?.slice(1).map(Number) ?? [];
  if (start === undefined || last === undefined || size === undefined || !(start <= last && last < size)) {
    return fail(name, `it sent the range ${quote(text)}; expected "bytes first-last/length"`);
  }
  if (!Number.isSafeInteger(size)) fail(name, `the server gives its size as ${size} bytes`);
  return { start, end: last + 1, size };
}

/** The length of an answer from its headers; that of a compressed answer is another number. */
function contentLength({ headers }: Pick<Answer, "headers">): number | null {
  const text = headers.has("content-encoding") ? null : headers.get("content-length");
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : null;
}

/** Reads a whole answer of at most this many bytes. */
export async function readBody(
  answer: Pick<Answer, "headers" | "pieces" | "cancel">,
  options: NamedOptions,
  most: number,
): Promise<Uint8Array> {
  const { name } = options;
  const told = contentLength(answer);
  if (told !== null && told > most) await refuse(answer, name, `it sends ${told} bytes; expected at most ${most}`);
  // Grown in place, because the server may send very small pieces.
  let bytes = new Uint8Array(Math.min(most, FIRST_BYTES));
  let length = 0;
  for await (const piece of counted(answer, options, most)) {
    const wanted = length + piece.length;
    if (wanted > bytes.length) {
      bytes = new Uint8Array(bytes.buffer.transfer(Math.min(most, Math.max(wanted, 2 * bytes.length))));
    }
    bytes.set(piece, length);
    length = wanted;
  }
  return bytes.subarray(0, length);
}

/** The pieces of an answer of at most this many bytes. */
async function* counted(
  { pieces }: Pick<Answer, "pieces">,
  { name, onBytes }: NamedOptions,
  most: number,
): AsyncGenerator<Uint8Array> {
  let length = 0;
  try {
    for await (const piece of pieces()) {
      length += piece.length;
      if (length > most) fail(name, `it sends more than ${most} bytes`);
      onBytes?.(piece.length);
      yield piece;
    }
  } catch (error) {
    throw error instanceof Break ? broken(name, error.message, String(length)) : error;
  }
}

/** The pieces of a whole file, the first long enough to detect a web page. */
async function* checkedPieces(
  answer: Answer,
  options: NamedOptions,
  { url, most }: { readonly url: URL; readonly most: number },
): AsyncGenerator<Uint8Array> {
  let start: Uint8Array | undefined = new Uint8Array();
  for await (const piece of counted(answer, options, most)) {
    if (start === undefined) {
      yield piece;
      continue;
    }
    const joined: Uint8Array = new Uint8Array(start.length + piece.length);
    joined.set(start);
    joined.set(piece, start.length);
    start = joined;
    if (joined.length < PAGE_BYTES) continue;
    refuseWebPage(joined, url, options.name);
    start = undefined;
    yield joined;
  }
  if (start === undefined) return;
  refuseWebPage(start, url, options.name);
  yield start;
}

/** Enough bytes to detect a web page. */
const PAGE_BYTES = 64;

/** A server or network that wants a login answers with a page and the status 200. */
export function refuseWebPage(start: Uint8Array, url: URL, name: string): void {
  const text = String.fromCharCode(...start.subarray(0, PAGE_BYTES)).replace(/^\xef\xbb\xbf/, "").trimStart();
  if (!/^<(?:!doctype html|html)\b/i.test(text) || /\.html?$/i.test(url.pathname)) return;
  fail(
    name,
    "the server sent a web page; perhaps the file needs a login, or a network login page answered instead",
  );
}

/** An answer whose bytes can be read once. */
export interface Answer {
  /** The status code. */
  readonly status: number;
  /** The server's text for it. */
  readonly statusText: string;
  /** Its headers. */
  readonly headers: Headers;
  /** What a hub reported before it redirected. */
  readonly linked: LinkedFile;
  /** The bytes. A {@link Break} is thrown if they end early. */
  pieces(): AsyncIterable<Uint8Array>;
  /** Cancels it. */
  cancel(): Promise<void>;
}

/** A body ended early; the message says how. */
class Break extends Error {}

/** A temporary failure: the error if it persists, and the wait that the server asks for, in milliseconds. */
class Setback extends Error {
  readonly error: Error;
  readonly wait: number;

  constructor(error: Error, wait = 0) {
    super(error.message);
    this.error = error;
    this.wait = wait;
  }
}

function broken(name: string, how: string, count: string): Setback {
  return new Setback(new CheckpointError(`reading ${name}: ${how} after ${count} bytes`));
}

/** Does work that may need several tries. */
export async function persist<T>(options: NamedOptions, work: () => Promise<T>): Promise<T> {
  for (let tries = 1;; tries++) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Setback)) throw error;
      await pause(options, error, tries);
    }
  }
}

/** Waits before the next try, or throws the error if there is none. */
async function pause(
  { onNotice, signal, clock = SYSTEM_CLOCK }: NamedOptions,
  { error, wait }: Setback,
  tries: number,
): Promise<void> {
  if (tries >= TRIES) {
    error.message += ` (tried ${TRIES} times)`;
    throw error;
  }
  if (wait > MAX_PAUSE) {
    error.message += `; it asks to wait ${Math.ceil(wait / 1000)} s`;
    throw error;
  }
  const milliseconds = Math.max(wait, FIRST_PAUSE * 2 ** (tries - 1));
  onNotice?.(`${error.message}; trying again in ${Math.ceil(milliseconds / 1000)} s`);
  await sleep(clock, milliseconds, signal);
}

/** The wait that a server asks for, in milliseconds: given as seconds, or as a date. */
function retryAfter({ headers }: Pick<Answer, "headers">, clock: Clock): number {
  const text = headers.get("retry-after")?.trim() ?? "";
  const milliseconds = /^\d{1,9}$/.test(text) ? 1000 * Number(text) : Date.parse(text) - clock.now();
  return milliseconds > 0 ? milliseconds : 0;
}

/** Status codes of redirects. */
const REDIRECTS = [301, 302, 303, 307, 308];

/** The answer to a `GET`, after redirects. */
export async function request(
  url: URL,
  headers: Readonly<Record<string, string>>,
  options: NamedOptions,
): Promise<Answer> {
  const { name, token } = options;
  // Ranges count the bytes as sent, so these must not be compressed. Browsers ensure this themselves.
  const plain = { "accept-encoding": "identity", ...headers };
  const secret = token === undefined ? basic(url) : `Bearer ${token}`;
  const first = new URL(url);
  [first.username, first.password] = ["", ""];
  const withSecret: Readonly<Record<string, string>> = secret === null ? plain : { ...plain, authorization: secret };
  // A page does not see redirect targets.
  if (secret === null && globalThis.location !== undefined) return await ask(first, plain, "follow", options);
  let [at, isHome, linked] = [first, true, NOT_LINKED];
  for (let n = 0; n <= MAX_REDIRECTS; n++) {
    const answer = await ask(at, isHome ? withSecret : plain, "manual", options);
    if (answer.isOpaque) return await ask(first, withSecret, "follow", options);
    if (isHome) linked = linkedFile(answer, linked);
    const location = answer.headers.get("location");
    if (!REDIRECTS.includes(answer.status) || location === null) return { ...answer, linked };
    await answer.cancel();
    at = redirected(at, location, name);
    // After leaving the origin, no secret is sent any more, not even back to it: another host chose the address.
    isHome &&= at.origin === url.origin;
  }
  return fail(name, `the server redirected more than ${MAX_REDIRECTS} times`);
}

/** `user:password` of an address, for HTTP basic authentication. */
function basic({ username, password }: URL): string | null {
  if (username === "" && password === "") return null;
  const [user, word] = [username, password].map((part) => part.replaceAll(/(?:%[\da-f]{2})+/gi, decodeURIComponent));
  const bytes = new TextEncoder().encode(`${user}:${word}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}

const NOT_LINKED: LinkedFile = { etag: null, size: null, commit: null };

function linkedFile({ headers }: Answer, before: LinkedFile): LinkedFile {
  const size = headers.get("x-linked-size");
  return {
    etag: headers.get("x-linked-etag") ?? before.etag,
    size: size !== null && /^\d{1,15}$/.test(size) ? Number(size) : before.size,
    commit: headers.get("x-repo-commit") ?? before.commit,
  };
}

/** One request, which is aborted if nothing arrives for too long. */
async function ask(
  url: URL,
  headers: Readonly<Record<string, string>>,
  redirect: "manual" | "follow",
  options: NamedOptions,
): Promise<Answer & { readonly isOpaque: boolean }> {
  const { name, signal, clock = SYSTEM_CLOCK } = options;
  const idle = new AbortController();
  const within = async <T>(work: Promise<T>): Promise<T> => {
    const cancel = clock.after(IDLE, () => idle.abort());
    try {
      return await work;
    } finally {
      cancel();
    }
  };
  const either = signal === undefined ? idle.signal : AbortSignal.any([signal, idle.signal]);
  let response: Response;
  try {
    response = await within(fetch(url, { headers, redirect, signal: either }));
  } catch (error) {
    signal?.throwIfAborted();
    if (!idle.signal.aborted && !(error instanceof TypeError)) throw error;
    const cause = idle.signal.aborted ? `nothing arrived for ${IDLE / 1000} s` : causeOf(error as TypeError);
    const from = name === shownAddress(url) ? "" : ` from ${shownAddress(url)}`;
    const failure = new TypeError(`reading ${name}: no answer${from}: ${cause}`);
    throw isFinal(cause) ? failure : new Setback(failure);
  }
  const { status, statusText, body, type } = response;
  const cancel = async (): Promise<void> => {
    if (!body?.locked) await body?.cancel();
  };
  if (PASSING.includes(status)) {
    const answer = { status, statusText, headers: response.headers };
    await cancel();
    throw new Setback(statusError(answer, options), retryAfter(answer, clock));
  }
  return {
    status,
    statusText,
    headers: response.headers,
    linked: NOT_LINKED,
    isOpaque: type === "opaqueredirect",
    cancel,
    async *pieces() {
      const reader = body?.getReader();
      if (reader === undefined) return;
      try {
        for (;;) {
          const { value, done } = await within(reader.read());
          if (done) return;
          yield value;
        }
      } catch (error) {
        signal?.throwIfAborted();
        if (idle.signal.aborted) throw new Break(`nothing arrived for ${IDLE / 1000} s`);
        // This is how the platform reports a broken connection.
        throw error instanceof TypeError ? new Break("the connection ended") : error;
      } finally {
        await reader.cancel().catch(() => {});
      }
    },
  };
}

/** Why `fetch` failed, without the addresses in the platform's message. */
function causeOf({ message, cause }: TypeError): string {
  const text = cause instanceof Error ? cause.message : message;
  return text.replaceAll(/\w+:\/\/\S+/g, "").replace(/^error sending request for url \(\s*/, "")
    .replace(/^(?:client error \(\w+\)|Fetch failed): /, "").trim();
}

/** Whether a retry a second later would fail the same way. */
function isFinal(cause: string): boolean {
  return /\bdns error\b|\brefused\b|\bunreachable\b|\bblocked\b|\bcertificate\b/i.test(cause);
}

function redirected(from: URL, location: string, name: string): URL {
  const to = URL.canParse(location, from) ? new URL(location, from) : null;
  const allowed = from.protocol === "https:" ? ["https:"] : ["http:", "https:"];
  if (to === null || !allowed.includes(to.protocol)) {
    return fail(
      name,
      `the server redirected to ${quote(shownAddress(location))}; expected an address of ${allowed.join(" or ")}`,
    );
  }
  return to;
}

/** Whether a browser's page requests something outside its own origin. */
function isCrossOrigin(url: URL): boolean {
  return globalThis.location !== undefined && globalThis.location.origin !== url.origin;
}

/** Cancels an invalid answer and throws. */
async function refuse(answer: Pick<Answer, "cancel">, name: string, what: string): Promise<never> {
  await answer.cancel();
  return fail(name, what);
}

/** Cancels an answer that is not a file and throws. */
export async function refuseStatus(answer: Answer, options: NamedOptions): Promise<never> {
  await answer.cancel();
  throw statusError(answer, options);
}

function statusError(
  answer: Pick<Answer, "status" | "statusText" | "headers">,
  { name, explain }: NamedOptions,
): StatusError {
  const said = `${answer.status} ${answer.statusText}`.trim();
  return new StatusError(`reading ${name}: the server answered ${said}${explain?.(answer) ?? ""}`, answer.status);
}

function fail(name: string, what: string): never {
  throw new CheckpointError(`reading ${name}: ${what}`);
}
