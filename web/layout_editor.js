/** Entry of the box editor: registers it with the frontend, and nothing else. */

import { extension } from "./editor/node.js";
import { register } from "./host/comfy.js";

register(extension);
