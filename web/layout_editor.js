/** Entry of the box editor: registers it with the frontend, and nothing else. */

import { register } from "./editor/host.js";

register();
