/** Text in shared memory: UTF-8, up to a zero or the end of its room. */

/** Some engines refuse to decode and encode shared memory: what crosses goes through a copy. */
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The text in `u8[p .. p + room)`, up to its first zero. */
export function readText(u8: Uint8Array, p: number, room: number): string {
  const bytes = u8.slice(p, p + room);
  const end = bytes.indexOf(0);
  return decoder.decode(new Uint8Array(end < 0 ? bytes : bytes.subarray(0, end)));
}

/** Writes text and a zero behind it, if there is room for one. Throws RangeError, with nothing written, if there is less. */
export function writeText(u8: Uint8Array, p: number, room: number, text: string): number {
  const bytes = encodeText(text, room);
  u8.set(bytes, p);
  if (bytes.length < room) u8[p + bytes.length] = 0;
  return bytes.length;
}

function encodeText(text: string, room: number): Uint8Array {
  if (typeof text !== 'string') throw new TypeError(`text is ${typeof text}; it must be a string`);
  const bytes = encoder.encode(text);
  if (bytes.length > room) {
    throw new RangeError(`text has ${bytes.length} bytes in UTF-8; there is room for ${room}`);
  }
  return bytes;
}
