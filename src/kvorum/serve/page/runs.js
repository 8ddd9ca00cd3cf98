// The list of the server's runs, newest first.

import { find, make, on, place, say, several } from "./dom.js";

export class Runs {
  constructor(api, failed) {
    this.api = api;
    this.failed = failed;
    this.list = find("runs-list");
    this.chosen = []; // the runs that are to stand side by side
    on("runs-compare", () => {
      location.hash = `#/compare/${this.chosen.map(encodeURIComponent).join("/")}`;
    });
    on("runs-more", () => this.load(this.last));
  }

  async load(before = "") {
    try {
      const page = await this.api.get(`/v1/runs?limit=30${before ? `&before=${encodeURIComponent(before)}` : ""}`);
      if (!before) {
        this.list.replaceChildren();
        this.choose([]);
      }
      this.list.append(...page.data.map((run) => this.item(run)));
      this.last = page.data.at(-1)?.id;
      find("runs-more").hidden = !page.has_more;
      find("runs-none").hidden = this.list.childElementCount > 0;
    } catch (error) {
      this.failed(error);
    }
  }

  /** Take up which runs are chosen; two can be compared, and of a third the first is let go. */
  choose(ids) {
    this.chosen = ids.slice(-2);
    for (const box of this.list.querySelectorAll("input")) box.checked = this.chosen.includes(box.value);
    find("runs-compare").disabled = this.chosen.length !== 2;
  }

  item(run) {
    const when = new Date(run.created * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    const facts = [run.program, several(run.workers.length, "worker"), run.model, several(run.ticks, "tick"), when].join(" · ");
    const link = make("a", { href: place(run.id), class: "problem" }, run.problem);
    const named = `the run “${run.problem.slice(0, 60)}”`;
    const remove = make("button", { class: "quiet", ariaLabel: `Delete ${named}` }, "delete");
    const box = make("input", { type: "checkbox", value: run.id, ariaLabel: `Compare ${named}`, on: { change: () => {
      this.choose(box.checked ? [...this.chosen, run.id] : this.chosen.filter((id) => id !== run.id));
    } } });
    const item = make("li", "", make("span", `chip ${run.status}`, run.status), make("div", "", link, make("p", "facts", facts)), make("span", "tools", box, remove));
    if (run.answer) item.children[1].append(make("p", "answer", run.answer));
    remove.addEventListener("click", async () => {
      if (remove.dataset.sure !== "yes") {
        remove.dataset.sure = "yes";
        say(remove, "really?");
        setTimeout(() => { remove.dataset.sure = ""; say(remove, "delete"); }, 3000);
        return;
      }
      try {
        await this.api.call("DELETE", this.api.run(run.id));
        const next = item.nextElementSibling || item.previousElementSibling;
        item.remove();
        this.choose(this.chosen.filter((id) => id !== run.id));
        (next?.querySelector("a") || find("runs")).focus();
        find("runs-none").hidden = this.list.childElementCount > 0;
      } catch (error) {
        this.failed(error);
      }
    });
    return item;
  }
}
