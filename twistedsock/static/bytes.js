/** Payloads of bytes: base64, what they are, and the pictures among them. Uses no DOM. */

/** Maximum number of pixels of a picture that is shown: decoded, a few bytes can become gigabytes. */
const MAX_PIXELS = 16_000_000;

export const isBytes = (data) => data instanceof Uint8Array;

/** Returns base64 (RFC 4648 section 4), as the server sends it. */
export function toBase64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
}

/** Returns an event of the HTTP API as the JavaScript client delivers it: bytes are its `data`. */
export function withBytes({ base64, ...event }) {
  return base64 === undefined ? event : { ...event, data: Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)) };
}

const text = (bytes, start, end) => String.fromCharCode(...bytes.subarray(start, end));

/** Each returns [width, height] of its format, read from the first bytes (offsets are those of the format's specification). */
const FORMATS = [
  { type: 'image/png', name: 'PNG', extension: 'png', // RFC 2083, sections 3.1 and 4.1.1
    test: (bytes) => text(bytes, 0, 8) === '\x89PNG\r\n\x1a\n' && text(bytes, 12, 16) === 'IHDR',
    size: (view) => [view.getUint32(16), view.getUint32(20)] },
  { type: 'image/gif', name: 'GIF', extension: 'gif', // GIF89a, section 18
    test: (bytes) => /^GIF8[79]a$/.test(text(bytes, 0, 6)),
    size: (view) => [view.getUint16(6, true), view.getUint16(8, true)] },
  { type: 'image/jpeg', name: 'JPEG', extension: 'jpg', // ITU T.81, annex B
    test: (bytes) => text(bytes, 0, 3) === '\xff\xd8\xff',
    size: jpegSize },
  { type: 'image/webp', name: 'WebP', extension: 'webp', // RFC 9649, section 2
    test: (bytes) => text(bytes, 0, 4) === 'RIFF' && text(bytes, 8, 12) === 'WEBP',
    size: webpSize },
];

/** The frame header, behind other segments, has the size. */
function jpegSize(view) {
  let at = 2;
  while (view.getUint8(at) === 0xff) {
    const marker = view.getUint8(at + 1);
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) return [view.getUint16(at + 7), view.getUint16(at + 5)];
    at += 2 + view.getUint16(at + 2);
  }
  return [0, 0];
}

function webpSize(view) {
  const kind = String.fromCharCode(view.getUint8(15));
  if (kind === ' ') return [view.getUint16(26, true) & 0x3fff, view.getUint16(28, true) & 0x3fff];
  if (kind === 'L') {
    const bits = view.getUint32(21, true);
    return [(bits & 0x3fff) + 1, (bits >>> 14 & 0x3fff) + 1];
  }
  return [(view.getUint32(24, true) & 0xffffff) + 1, (view.getUint32(26, true) >>> 8) + 1];
}

/**
 * Recognises pictures that browsers show without running anything that is in them. SVG and HTML are not among them.
 * @returns {{type: string, name: string, extension: string, width: number, height: number, shown: boolean} | undefined}
 * `shown` is false if the size is unknown, or too large to be decoded
 */
export function pictureIn(bytes) {
  const format = FORMATS.find(({ test }) => test(bytes));
  if (!format) return undefined;
  const { type, name, extension, size } = format;
  try {
    const [width, height] = size(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    return { type, name, extension, width, height, shown: width * height > 0 && width * height <= MAX_PIXELS };
  } catch {
    return { type, name, extension, width: 0, height: 0, shown: false }; // it ends before its size
  }
}

/** Returns `4 bytes`, `12.3 kB`, or `PNG image, 640 × 480, 12.3 kB`. */
export function describeBytes(bytes) {
  const count = bytes.length;
  const size = count === 1 ? '1 byte' : count < 1000 ? `${count} bytes` : `${(count / 1000).toLocaleString('en', { maximumFractionDigits: 1 })} kB`;
  const picture = pictureIn(bytes);
  if (!picture) return size;
  return [`${picture.name} image`, ...(picture.width ? [`${picture.width} × ${picture.height}`] : []), size].join(', ');
}
