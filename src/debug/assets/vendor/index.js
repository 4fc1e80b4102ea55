/** The one door to the vendored files: what the page uses, under one name each. */
import { h } from "./preact.js";
import htm from "./htm.js";

export { h, render, Fragment } from "./preact.js";
export { useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback } from "./hooks.js";
export { signal, computed, effect, batch, untracked } from "./signals.js";

/** JSX without a build step. Text goes into text nodes; there is no way to give it HTML. */
export const html = htm.bind(h);
