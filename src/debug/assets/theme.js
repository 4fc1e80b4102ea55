/** Light, dark, or what the system says; kept between visits. */
import { effect, signal } from "./vendor/index.js";

const KEY = "smith.theme";
const kept = localStorage.getItem(KEY);

export const theme = signal(/** @type {"auto" | "light" | "dark"} */ (kept === "light" || kept === "dark" ? kept : "auto"));

effect(() => {
  document.documentElement.dataset.theme = theme.value;
  if (theme.value === "auto") localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, theme.value);
});

/** From what is seen now to the other. */
export function turn() {
  const dark = theme.value === "dark" || (theme.value === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  theme.value = dark ? "light" : "dark";
}
