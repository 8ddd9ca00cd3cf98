// Keyboard shortcuts: still while a field has the focus, and off where wanted (some people speak their keys).

import { find } from "./dom.js";

const OFF = "kvorum.keys";

export class Keys {
  /** `commands`: key -> function; a function that returns false has not used the key. */
  constructor(commands) {
    this.commands = commands;
    this.box = find("keys-on");
    this.box.checked = localStorage.getItem(OFF) !== "off";
    this.box.addEventListener("change", () => localStorage.setItem(OFF, this.box.checked ? "on" : "off"));
    document.addEventListener("keydown", (event) => this.press(event));
  }

  press(event) {
    const field = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "Escape" && field) {
      field.blur();
      return;
    }
    if (!this.box.checked || field || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.key === " " && event.target.closest?.("button, a, summary")) return;
    const column = event.target.closest?.(".column .text");
    if (column && ["ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) return;
    const command = this.commands[event.key] ?? (/^[1-9]$/.test(event.key) ? this.commands.digit : undefined);
    if (command && command(event) !== false) event.preventDefault();
  }
}
