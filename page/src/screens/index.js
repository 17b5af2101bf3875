// The screens, in the order of the page's head.
import { reach } from "./reach.js";
import { tape } from "./tape.js";
import { train } from "./train.js";

export const screens = [tape, reach, train];
