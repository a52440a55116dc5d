/** Entry of the cut-out editor: registers it with the frontend, and nothing else. */

import { register } from "./editor/host.js";
import { extension } from "./cutout/host.js";

register(extension);
