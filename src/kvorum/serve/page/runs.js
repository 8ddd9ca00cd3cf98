// The list of the server's runs, newest first.

import { amount, find, make, say } from "./dom.js";

export class Runs {
  constructor(api, failed) {
    this.api = api;
    this.failed = failed;
    this.list = find("runs-list");
    find("runs-more").addEventListener("click", () => this.load(this.last));
  }

  async load(before = "") {
    try {
      const page = await this.api.get(`/v1/runs?limit=30${before ? `&before=${encodeURIComponent(before)}` : ""}`);
      if (!before) this.list.replaceChildren();
      this.list.append(...page.data.map((run) => this.item(run)));
      this.last = page.data[page.data.length - 1]?.id;
      find("runs-more").hidden = !page.has_more;
      find("runs-none").hidden = this.list.childElementCount > 0;
    } catch (error) {
      this.failed(error);
    }
  }

  item(run) {
    const workers = run.workers.length === 1 ? "1 worker" : `${run.workers.length} workers`;
    const when = new Date(run.created * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    const facts = [run.program, workers, run.model, `${amount(run.ticks)} ticks`, when].join(" · ");
    const link = make("a", { href: `#/run/${encodeURIComponent(run.id)}`, class: "problem" }, run.problem);
    const remove = make("button", { type: "button", class: "quiet", aria: { label: `Delete the run “${run.problem.slice(0, 60)}”` } }, "delete");
    const item = make("li", {}, make("span", { class: `chip ${run.status}` }, run.status), make("div", {}, link, make("p", { class: "facts" }, facts)), remove);
    if (run.answer) item.children[1].append(make("p", { class: "answer" }, run.answer));
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
        (next?.querySelector("a") || find("runs")).focus();
        find("runs-none").hidden = this.list.childElementCount > 0;
      } catch (error) {
        this.failed(error);
      }
    });
    return item;
  }
}
