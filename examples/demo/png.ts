/**
 * A PNG encoder for 8-bit greyscale and RGB images (RFC 2083).
 *
 * @module
 */

/** An image of one (grey) or three (red, green, blue) bytes per pixel, row-major. */
export interface ByteImage {
  /** Pixels in a row. */
  readonly width: number;
  /** Rows. */
  readonly height: number;
  /** Bytes per pixel. */
  readonly channels: 1 | 3;
  /** [height, width, channels] */
  readonly bytes: Uint8Array;
}

/** The image as a PNG file. */
export async function encodePng({ width, height, channels, bytes }: ByteImage): Promise<Uint8Array<ArrayBuffer>> {
  const stride = width * channels;
  if (bytes.length !== stride * height) {
    throw new RangeError(
      `an image of ${width}×${height}×${channels} needs ${stride * height} bytes, not ${bytes.length}`,
    );
  }
  const filtered = new Uint8Array((stride + 1) * height); // each row after a 0, for "no filter"
  for (let y = 0; y < height; y++) filtered.set(bytes.subarray(y * stride, (y + 1) * stride), y * (stride + 1) + 1);
  const header = new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 8, channels === 1 ? 0 : 2, 0, 0, 0]);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  const deflated = new Response(new Blob([filtered]).stream().pipeThrough(new CompressionStream("deflate")));
  return await new Blob([
    new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]),
    chunk("IHDR", header),
    chunk("IDAT", await deflated.bytes()),
    chunk("IEND", new Uint8Array()),
  ]).bytes();
}

function chunk(type: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
