"use strict";
// Words play from where they are spoken, light up while they are heard, and are reached by arrow keys.
(() => {
  const LEAD = 0.04; // seconds before a word that it plays from: its first sound is not cut
  const players = [...document.querySelectorAll("audio")];

  for (const player of players) {
    const words = [...player.closest(".example").querySelectorAll("button.word")];
    const light = () => {
      const now = player.currentTime;
      for (const word of words) {
        const on = !player.paused && now >= Number(word.dataset.at) - LEAD && now < Number(word.dataset.until);
        word.classList.toggle("now", on);
      }
    };
    for (const kind of ["timeupdate", "pause", "ended", "seeked"]) player.addEventListener(kind, light);
    player.addEventListener("play", () => {
      for (const other of players) if (other !== player) other.pause();
      const follow = () => { light(); if (!player.paused) requestAnimationFrame(follow); };
      follow();
    });
  }

  document.addEventListener("click", (event) => {
    const word = event.target.closest("button.word");
    if (!word) return;
    const player = word.closest(".example").querySelector("audio");
    player.currentTime = Math.max(0, Number(word.dataset.at) - LEAD);
    player.play().catch(() => {}); // a browser may refuse; its own controls still play
  });

  document.addEventListener("keydown", (event) => {
    const word = event.target.closest("button.word");
    if (!word || event.altKey || event.ctrlKey || event.metaKey) return;
    const line = [...word.parentElement.querySelectorAll("button.word")];
    const at = line.indexOf(word);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: line.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = line[Math.min(Math.max(to, 0), line.length - 1)];
    word.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
})();
