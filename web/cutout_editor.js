/** Entry of the cut-out editor: registers it with the frontend, and nothing else. */

import { extension } from "./cutout/node.js";
import { register } from "./host/comfy.js";

register(extension);
