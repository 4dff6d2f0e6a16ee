// The slider without a round trip: every choice is in the page already, as rows of a table. Without this script the
// form's button does the same.
"use strict";

const slider = document.getElementById("point");
const choices = [...document.querySelectorAll("#choices tbody tr")];
const accounts = [...document.querySelectorAll("#accounts tbody tr")];
const circles = [...document.querySelectorAll(".curve circle")];
const grouped = new Intl.NumberFormat("en-US");

function show() {
  const place = Number(slider.value);
  const choice = choices[place].dataset;
  for (const id of ["budget", "bytes"]) document.getElementById(id).textContent = grouped.format(choice.bytes);
  document.getElementById("kept").textContent = grouped.format(choice.features);
  document.getElementById("keys").textContent = grouped.format(choice.keys);
  document.getElementById("share").textContent = `${choice.share} %`;
  document.getElementById("proven").textContent = choice.proven;
  document.getElementById("command").textContent = choice.bytes;
  slider.setAttribute("aria-valuetext", `${grouped.format(choice.bytes)} bytes, ${choice.features} features`);
  circles.forEach((circle, i) => {
    circle.classList.toggle("chosen", i === place);
    circle.setAttribute("r", i === place ? 7 : 5);
  });
  for (const row of accounts) {
    const stays = choice.kept[Number(row.dataset.place)] === "1";
    const badge = row.lastElementChild.firstElementChild;
    badge.textContent = stays ? "kept" : "dropped";
    badge.className = `badge ${stays ? "good" : "warn"}`;
  }
}

if (slider) {
  slider.addEventListener("input", show);
  show();
}
