// Preact with htm: components as tagged templates, without a build step. Text is always text, never markup.

import htm from "../vendor/htm.js";
import { Fragment, h, render } from "../vendor/preact.js";

export * from "../vendor/preact-hooks.js";
export { Fragment, render };
export const html = htm.bind(h);
