// What the pages do beyond HTML: copy, ask before what can't be undone, times in the reader's zone, the first call's tick.
// Everything works without it, too.
"use strict";

document.documentElement.classList.add("js");

// On a phone the pages' names stand in one line that can be moved: the current one is brought into sight.
const current = document.querySelector("nav [aria-current]");
if (current) {
  const row = current.parentElement;
  row.scrollLeft = current.offsetLeft - (row.clientWidth - current.offsetWidth) / 2;
}

for (const button of document.querySelectorAll("[data-copy]")) {
  const text = button.parentElement.querySelector("code").textContent;
  const label = button.textContent;
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it and copy by hand";
    }
    setTimeout(() => { button.textContent = label; }, 2000);
  });
}

for (const form of document.querySelectorAll("form[data-ask]")) {
  form.addEventListener("submit", (event) => {
    if (!confirm(form.dataset.ask)) event.preventDefault();
  });
}

const two = (number) => String(number).padStart(2, "0");
for (const element of document.querySelectorAll("time[datetime]")) {
  const at = new Date(element.dateTime);
  if (Number.isNaN(at.valueOf())) continue;
  element.title = element.textContent;
  element.textContent = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
}

for (const form of document.querySelectorAll("form[data-at-once]")) {
  for (const field of form.querySelectorAll("select")) field.addEventListener("change", () => form.requestSubmit());
}

const waiting = document.querySelector("[data-calls]");
if (waiting) {
  const source = new EventSource(waiting.dataset.calls);
  source.addEventListener("call", (event) => {
    const call = JSON.parse(event.data);
    waiting.classList.add("done");
    waiting.querySelector("[data-told]").textContent = `The first call arrived: ${call.model}, ${call.ending.replaceAll("_", " ")}.`;
    source.close();
  });
}
