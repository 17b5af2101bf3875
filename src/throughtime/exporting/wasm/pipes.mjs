// Numbers from standard input and to standard output. The process ends where its input does.
import { readSync, writeSync } from "node:fs";

export function read(bytes) {
  const data = new Uint8Array(bytes);
  for (let have = 0, got; have < bytes; have += got) {
    got = readSync(0, data, have, bytes - have);
    if (!got) process.exit();
  }
  return data.buffer;
}

export function write(values) {
  const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  for (let done = 0; done < data.length; ) done += writeSync(1, data, done);
}
