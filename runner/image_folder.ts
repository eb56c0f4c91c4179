/**
 * The images of a folder, in an order that does not depend on the file system, and their classes by subfolder.
 *
 * @module
 */

/** The images of a folder. */
export interface ImageFolder {
  /** Its path. */
  readonly root: string;
  /** Paths of the images below the folder, with `/` between names, in order of their UTF-16 units. */
  readonly paths: readonly string[];
  /**
   * The subfolders that hold the images, as classes in order, and the class of each image; `null` without subfolders.
   */
  readonly classes: { readonly names: readonly string[]; readonly labels: readonly number[] } | null;
}

/** Extensions of images, as in torchvision's `ImageFolder`, plus others that decoders read. */
const EXTENSIONS = /\.(?:jpe?g|png|ppm|bmp|pgm|tiff?|webp|gif|avif|heic)$/i;

/**
 * Lists the images of a folder and of those below it. If every image is in a subfolder, as in `root/cat/1.jpg`, the
 * names of the subfolders are the classes. Names that begin with a dot are skipped.
 *
 * @throws {RangeError} if there are no images.
 */
export async function listImages(root: string): Promise<ImageFolder> {
  const paths = (await Array.fromAsync(imagesBelow(root, ""))).sort();
  if (paths.length === 0) {
    throw new RangeError(
      `reading ${root}: found no images; expected files with extensions such as .jpg, .png and .webp`,
    );
  }
  const folders = paths.map((path) => path.includes("/") ? path.slice(0, path.indexOf("/")) : null);
  if (folders.includes(null)) return { root, paths, classes: null };
  const names = [...new Set(folders as string[])].sort();
  return { root, paths, classes: { names, labels: folders.map((folder) => names.indexOf(folder!)) } };
}

async function* imagesBelow(root: string, folder: string, above: readonly string[] = []): AsyncGenerator<string> {
  const real = await Deno.realPath(`${root}/${folder}`);
  // A link to a folder counts as a folder, unless it leads back up.
  if (above.includes(real)) return;
  for await (const { name } of Deno.readDir(real)) {
    if (name.startsWith(".")) continue;
    const path = folder + name;
    const info = await Deno.stat(`${root}/${path}`).catch(() => null);
    if (info?.isDirectory) yield* imagesBelow(root, `${path}/`, [...above, real]);
    else if (info?.isFile && EXTENSIONS.test(name)) yield path;
  }
}
