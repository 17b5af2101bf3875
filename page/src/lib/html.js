// What screens are written with.
import htm from "htm";
import { h } from "preact";

export const html = htm.bind(h);
