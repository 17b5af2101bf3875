// The screens, in the order of the page's head.
import { fork } from "./fork.js";
import { reach } from "./reach.js";
import { storyOf } from "./story.js";
import { tape } from "./tape.js";
import { train } from "./train.js";

const live = [tape, fork, reach, train];

export const screens = [...live, storyOf(live)];
