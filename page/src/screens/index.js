// The screens, in the order of the page's head.
import { tape } from "./tape.js";

export const screens = [tape];
