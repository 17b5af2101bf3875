// The screens, in the order of the page's head.
import { fork } from "./fork.js";
import { tape } from "./tape.js";

export const screens = [tape, fork];
