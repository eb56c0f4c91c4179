/**
 * Files on the Hugging Face hub, and on servers with the same interface.
 *
 * An address is `hf:owner/repository/path/of/the/file`, optionally followed by `@revision` (default `main`): a branch,
 * a tag, or the hash of a commit, as in `hf:owner/saes/layer_5/sae.pt@v1.0` or `hf:owner/saes@refs/pr/1`. Without a
 * path, or with the path of a folder, it means the folder. The revision is what follows the last `@`; so a path that
 * contains one needs a revision. Nothing is percent-encoded. `hf://…` is the same.
 *
 * @module
 */

import { checkOptions } from "../kernels/engine/options.ts";
import { CheckpointError, quote } from "./errors.ts";
import { checkPath, type FileSet } from "./file_set.ts";
import {
  type Answer,
  type HttpOptions,
  type LinkedFile,
  type NamedOptions,
  openHttp,
  persist,
  readBody,
  refuseStatus,
  refuseWebPage,
  type RemoteSource,
  request,
  shownAddress,
} from "./http.ts";
import type { Clock } from "./clock.ts";
import { decodeText, type JsonValue, parseJson } from "./json.ts";
import type { Source } from "./source.ts";

/** The progress of a download. */
export interface HubProgress {
  /** The file's path in its repository. */
  readonly path: string;
  /** Bytes received. */
  readonly received: number;
  /** Size of the file in bytes; `null` if the server does not give it. */
  readonly size: number | null;
}

/** The address of a hub and how to use it. */
export interface HubOptions {
  /** Its address; if left out, the environment's `HF_ENDPOINT`, else `https://huggingface.co`. */
  readonly endpoint?: string;
  /**
   * A token for private or gated repositories; if left out, the environment's `HF_TOKEN`. It is sent only to the hub.
   */
  readonly token?: string;
  /**
   * The folder for downloaded files; `null` keeps none and reads ranges of the remote file. If left out, a folder in
   * the user's own cache, if usable.
   */
  readonly cache?: string | null;
  /** Called as bytes arrive. */
  readonly onProgress?: (progress: HubProgress) => void;
  /** Called with one line about delays and problems: a retry, another process's download, an unusable cache. */
  readonly onNotice?: (line: string) => void;
  /** Aborts every request. */
  readonly signal?: AbortSignal;
  /**
   * Largest number of bytes from a server that sends neither ranges nor a length, or into memory; 1 GiB if left out.
   */
  readonly maxBytes?: number;
  /** The clock; the platform's if left out. */
  readonly clock?: Clock;
}

/** @throws {TypeError} for an unknown option. */
export function checkHubOptions(hub: HubOptions): void {
  checkOptions("hub", hub, {
    endpoint: true,
    token: true,
    cache: true,
    onProgress: true,
    onNotice: true,
    signal: true,
    maxBytes: true,
    clock: true,
  });
}

/** The default address of the hub. */
export const HUB_ENDPOINT = "https://huggingface.co";

/** Resolved access to a hub, with values from the environment filled in. */
export interface HubAccess extends Pick<HubOptions, "token" | "signal" | "onNotice" | "maxBytes" | "clock"> {
  /** The hub's address. */
  readonly endpoint: string;
}

/** What an `hf:` address names. */
export interface HubAddress {
  /** `owner/name` */
  readonly repo: string;
  /** The path in the repository; empty for its root. */
  readonly path: string;
  /** A branch, a tag or a commit. */
  readonly revision: string;
}

const SCHEME = /^hf:(?:\/\/)?/;
const REPO = /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}\/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/;
const REVISION = /^[A-Za-z0-9][A-Za-z0-9._+-]*(?:\/[A-Za-z0-9][A-Za-z0-9._+-]*)*$/;
const MAX_PAGES = 50;
const MAX_PAGE_BYTES = 2 ** 23;
const MAX_PAGE_PARTS = 2 ** 17;

/** Whether a string is a hub address. */
export function isHubAddress(text: string): boolean {
  return SCHEME.test(text);
}

/** @throws {CheckpointError} for any other string. */
export function parseHubAddress(text: string): HubAddress {
  const form = "expected hf:owner/repository/path@revision, where path and @revision are optional";
  const fail = (what: string): never => {
    throw new CheckpointError(`reading ${quote(text)}: ${what}; ${form}`);
  };
  const rest = text.replace(SCHEME, "").replace(/\/$/, "");
  const at = rest.lastIndexOf("@");
  const [owner = "", name = "", ...segments] = (at < 0 ? rest : rest.slice(0, at)).split("/");
  const revision = at < 0 ? "main" : rest.slice(at + 1);
  const [repo, path] = [`${owner}/${name}`, segments.join("/")];
  if (!isHubAddress(text) || !REPO.test(repo)) fail(`found the repository ${quote(repo)}`);
  if (!REVISION.test(revision)) fail(`found the revision ${quote(revision)}`);
  // In other tools the revision comes after the repository.
  if (path === "" && revision.includes("/") && !revision.startsWith("refs/")) {
    fail(`found the revision ${quote(revision)}, but the path goes before the @`);
  }
  if (path !== "") checkPath(path);
  return { repo, path, revision };
}

/** Formats an address in the form that {@link parseHubAddress} reads. */
export function formatHubAddress({ repo, path, revision }: HubAddress): string {
  const place = path === "" ? repo : `${repo}/${path}`;
  return revision === "main" && !place.includes("@") ? `hf:${place}` : `hf:${place}@${revision}`;
}

/** Whether the revision is a commit, whose files never change. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/**
 * Opens a file; its bytes come from wherever the hub redirects to.
 *
 * @throws {CheckpointError} if there is no such file, or the hub requires a token.
 */
export async function openHubFile(
  address: HubAddress,
  access: HubAccess,
  more: Pick<HttpOptions, "onBytes" | "store"> = {},
): Promise<RemoteSource> {
  const { repo, path, revision } = address;
  if (path === "") {
    throw new CheckpointError(
      `reading ${formatHubAddress(address)}: this is a whole repository; expected the path of a file in it`,
    );
  }
  const url = hubUrl(access, `${repo}/resolve/${encodeURIComponent(revision)}/${encodePath(path)}`);
  return await openHttp(url, { ...requestOptions(address, access), ...more });
}

/** The expected hash of a file. */
export interface Digest {
  /** The hash of the bytes, or git's id of the file. */
  readonly kind: "sha256" | "git";
  /** In hexadecimal. */
  readonly hex: string;
}

/** The hash from a hub's answer: large files are tagged with their SHA-256, others with their git id. */
export function digestOf(
  { etag, linked }: { readonly etag: string | null; readonly linked: LinkedFile },
): Digest | null {
  const hex = /^(?:W\/)?"([0-9a-f]{40}|[0-9a-f]{64})"$/.exec(linked.etag ?? etag ?? "")?.[1];
  if (hex?.length === 64 && linked.etag !== null) return { kind: "sha256", hex };
  return hex?.length === 40 && linked.commit !== null ? { kind: "git", hex } : null;
}

/** How to read from a hub. */
export interface HubWays {
  /** Opens a file. */
  readonly open: (address: HubAddress) => Promise<Source>;
  /** Names in a folder; those of folders end with `/`. */
  readonly list: (address: HubAddress) => Promise<readonly string[]>;
}

/**
 * The files beside a file, or in a folder.
 *
 * @throws {CheckpointError} if there is no file or folder at that address.
 */
export async function hubFiles(address: HubAddress, ways: HubWays): Promise<FileSet> {
  const { path } = address;
  const slash = path.lastIndexOf("/");
  const parent = { ...address, path: path.slice(0, Math.max(0, slash)) };
  if (path === "") return hubFolder(address, null, ways);
  const base = path.slice(slash + 1);
  const names = await ways.list(parent);
  if (names.includes(base)) return hubFolder(parent, base, ways);
  if (names.includes(`${base}/`)) return hubFolder(address, null, ways);
  throw new CheckpointError(`reading ${formatHubAddress(address)}: there is no file or folder of that name`);
}

function hubFolder(address: HubAddress, main: string | null, ways: HubWays): FileSet {
  const within = (path: string): string => address.path === "" ? path : `${address.path}/${path}`;
  const listings = new Map<string, Promise<readonly string[]>>();
  const list = (folder: string): Promise<readonly string[]> => {
    const listing = listings.get(folder) ?? ways.list({ ...address, path: folder });
    listings.set(folder, listing);
    return listing;
  };
  return {
    name: formatHubAddress(address),
    main,
    list: () => list(address.path),
    async find(path) {
      checkPath(path);
      const whole = within(path);
      // Each folder on the way must be listed in the one above it, or the hub would be asked for a missing one.
      const segments = path.split("/");
      for (const [depth, segment] of segments.entries()) {
        const names = await list(depth === 0 ? address.path : within(segments.slice(0, depth).join("/")));
        if (!names.includes(depth === segments.length - 1 ? segment : `${segment}/`)) return null;
      }
      return await ways.open({ ...address, path: whole });
    },
    async findAbove(name) {
      checkPath(name);
      if (address.path === "") return null;
      const above = address.path.slice(0, Math.max(0, address.path.lastIndexOf("/")));
      if (!(await list(above)).includes(name)) return null;
      return await ways.open({ ...address, path: above === "" ? name : `${above}/${name}` });
    },
  };
}

/** Names in a folder; those of folders end with `/`. */
export async function listHubFolder(address: HubAddress, access: HubAccess): Promise<readonly string[]> {
  const { repo, path, revision } = address;
  const options = requestOptions(address, access);
  const folder = path === "" ? "" : `${path}/`;
  const names: string[] = [];
  const tree = `api/models/${repo}/tree/${encodeURIComponent(revision)}${path && `/${encodePath(path)}`}`;
  let url: URL | null = hubUrl(access, tree);
  for (let page = 0; url !== null; page++) {
    if (page === MAX_PAGES) fail(address, `the folder has more than ${MAX_PAGES} pages of files`);
    const here: URL = url;
    const { answer, bytes } = await persist(options, async () => {
      const answer = await request(here, {}, options);
      if (answer.status !== 200) await refuseStatus(answer, options);
      return { answer, bytes: await readBody(answer, options, MAX_PAGE_BYTES) };
    });
    refuseWebPage(bytes, here, options.name);
    const what = `the list of files of ${options.name}`;
    const text = decodeText(bytes, what);
    const entries = parseJson(text, { what, maxParts: MAX_PAGE_PARTS });
    if (!Array.isArray(entries)) return fail(address, "the hub's list of files is not a list");
    for (const entry of entries as readonly JsonValue[]) {
      const [type, place] = entry instanceof Map ? [entry.get("type"), entry.get("path")] : [];
      if (typeof place !== "string" || !place.startsWith(folder) || place.indexOf("/", folder.length) >= 0) {
        return fail(address, "the hub's list of files has an entry that is not in the folder");
      }
      if (type === "file" || type === "directory") {
        names.push(place.slice(folder.length) + (type === "file" ? "" : "/"));
      }
    }
    url = nextPage(address, answer, url);
  }
  return names.sort();
}

/** The address after `rel="next"`, which must be on the same hub. */
function nextPage(address: HubAddress, { headers }: Pick<Answer, "headers">, page: URL): URL | null {
  const next = /<([^>]*)>\s*;\s*rel="?next"?/.exec(headers.get("link") ?? "")?.[1];
  if (next === undefined) return null;
  const url = URL.canParse(next, page) ? new URL(next, page) : null;
  if (url === null || url.origin !== page.origin) {
    return fail(address, `the list of files continues at another address, ${quote(shownAddress(next))}`);
  }
  return url;
}

function hubUrl({ endpoint }: HubAccess, place: string): URL {
  const base = endpoint.replace(/\/+$/, "");
  if (!/^https?:\/\//i.test(base) || !URL.canParse(base)) {
    throw new TypeError(`the hub's endpoint is ${quote(shownAddress(endpoint))}; expected an http or https address`);
  }
  return new URL(`${base}/${place}`);
}

function encodePath(path: string): string {
  return path.split("/").map(encodeURIComponent).join("/");
}

function requestOptions(address: HubAddress, { endpoint: _, ...access }: HubAccess): NamedOptions {
  const { token } = access;
  // The platform's own message would quote a bad header.
  if (token !== undefined && !/^[!-~]+$/.test(token)) {
    throw new TypeError("the hub token (HF_TOKEN) is empty or has characters that no token has");
  }
  return { ...access, name: formatHubAddress(address), explain: (answer) => explain(answer, token !== undefined) };
}

function explain({ status, headers }: Pick<Answer, "status" | "headers">, hasToken: boolean): string {
  const said = headers.get("x-error-message");
  const words = said === null ? "" : `: ${quote(said)}`;
  if (status === 401 || status === 403) {
    const remedy = hasToken
      ? "the token given (HF_TOKEN) has no access to it"
      : "set HF_TOKEN to a token with access to it";
    return `${words}; the repository is private or gated, or does not exist: ${remedy}`;
  }
  return status === 404 ? `${words}; there is no such repository, revision or file` : words;
}

function fail(address: HubAddress, what: string): never {
  throw new CheckpointError(`reading ${formatHubAddress(address)}: ${what}`);
}
