/** Entry of the notes on nodes: registers them with the frontend, and nothing else. */

import { register } from "./host/comfy.js";
import { extension } from "./notes/node.js";

register(extension);
