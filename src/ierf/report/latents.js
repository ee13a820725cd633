const order = document.querySelector("#sort");

function sortCards() {
  for (const list of document.querySelectorAll(".concepts")) {
    const cards = [...list.children].sort((a, b) => b.dataset[order.value] - a.dataset[order.value]);
    list.append(...cards);
  }
}

order.addEventListener("change", sortCards);
