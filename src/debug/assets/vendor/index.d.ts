// For the type check only: the types are those of the same versions of the packages, found by tests/page/tsconfig.json.
export { h, render, Fragment } from "preact";
export { useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback } from "preact/hooks";
export { signal, computed, effect, batch, untracked } from "@preact/signals";
export declare const html: (strings: TemplateStringsArray, ...values: any[]) => any;
