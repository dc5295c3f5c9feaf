// Light or dark: as the system says, until a person chooses.

import { createStore } from "../core/store.js";

const THEME = "poolkeeper-theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const ofSystem = () => (system.matches ? "dark" : "light");

export const theme = createStore({ name: localStorage.getItem(THEME) ?? ofSystem() });

if (localStorage.getItem(THEME)) document.documentElement.dataset.theme = theme.get().name;
system.addEventListener("change", () => {
  if (!localStorage.getItem(THEME)) theme.set({ name: ofSystem() });
});

export function toggleTheme() {
  const name = theme.get().name === "dark" ? "light" : "dark";
  localStorage.setItem(THEME, name);
  document.documentElement.dataset.theme = name;
  theme.set({ name });
}
