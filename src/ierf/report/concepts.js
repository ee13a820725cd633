const tabs = [...document.querySelectorAll(".tabs button")];
const layers = [...document.querySelectorAll(".layer")];
const search = document.querySelector("#search");
const found = document.querySelector("#found");

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const cards = [...document.querySelectorAll(".layer:not([hidden]) .concept")];
  for (const card of cards) card.hidden = !words.every((word) => card.dataset.words.includes(word));
  found.textContent = `${cards.filter((card) => !card.hidden).length} of ${cards.length} cards`;
}

function select(index) {
  tabs.forEach((tab, i) => {
    tab.setAttribute("aria-selected", i === index);
    tab.tabIndex = i === index ? 0 : -1;
  });
  layers.forEach((layer, i) => { layer.hidden = i !== index; });
  filter();
}

function follow() {
  const card = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const at = layers.findIndex((layer) => card && layer.contains(card));
  if (at < 0) return;
  search.value = "";
  select(at);
  card.scrollIntoView();
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => select(i));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = (i + step + tabs.length) % tabs.length;
    select(next);
    tabs[next].focus();
  });
});
search.addEventListener("input", filter);
addEventListener("hashchange", follow);
select(0);
follow();
