"use strict";
const duration = Number(document.body.dataset.duration);
const sounds = [...document.querySelectorAll("audio")];
const tracks = [...document.querySelectorAll(".track")];
const choices = [...document.querySelectorAll(".choices button")];
const cursors = [...document.querySelectorAll(".cursor")];
const play = document.getElementById("play");
const time = document.getElementById("time");
let heard = 0;
let until = Infinity; // Where a close-up ends.
let frame = 0; // The one that is asked for.

const sound = () => sounds[heard];
const clamp = (seconds) => Math.min(Math.max(seconds, 0), duration);

function draw() {
  const now = clamp(sound().currentTime);
  for (const cursor of cursors) cursor.style.left = `${(100 * now) / duration}%`;
  time.textContent = `${now.toFixed(1)} / ${duration.toFixed(1)} s`;
}

function show() {
  const paused = sound().paused;
  play.textContent = paused ? "\u25B6" : "\u275A\u275A";
  tracks.forEach((track, i) => {
    track.classList.toggle("heard", i === heard);
    track.querySelector(".listen").textContent = !paused && i === heard ? "\u275A\u275A" : "\u25B6";
  });
  choices.forEach((choice, i) => choice.setAttribute("aria-pressed", i === heard));
  draw();
}

function tick() {
  draw();
  if (sound().currentTime >= until) {
    sound().pause();
    until = Infinity;
  }
  frame = sound().paused ? 0 : requestAnimationFrame(tick);
}

function start() {
  // A switch may pause a sound before it has begun; that is no error.
  sound().play().catch(() => {});
}

function toggle() {
  until = Infinity;
  if (sound().paused) start();
  else sound().pause();
}

function choose(i) {
  if (i === heard) return;
  const { paused, currentTime } = sound();
  sound().pause();
  heard = i;
  sound().currentTime = currentTime;
  if (!paused) start();
  show();
}

function seek(seconds) {
  until = Infinity;
  sound().currentTime = clamp(seconds);
  draw();
}

for (const element of sounds) {
  for (const event of ["play", "pause", "ended", "seeked"]) element.addEventListener(event, show);
  element.addEventListener("play", () => {
    if (!frame) frame = requestAnimationFrame(tick);
  });
}
play.addEventListener("click", toggle);
choices.forEach((choice, i) => choice.addEventListener("click", () => choose(i)));
tracks.forEach((track, i) => {
  track.querySelector(".listen").addEventListener("click", () => {
    if (i === heard) return toggle();
    choose(i);
    start();
  });
  const wave = track.querySelector(".wave");
  wave.addEventListener("click", (event) => {
    const box = wave.getBoundingClientRect();
    choose(i);
    seek((duration * (event.clientX - box.left)) / box.width);
  });
});
for (const button of document.querySelectorAll(".gap .listen")) {
  const { sound: number, begin, end } = button.dataset;
  button.addEventListener("click", () => {
    choose(Number(number));
    seek(Number(begin));
    until = Number(end);
    start();
  });
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const number = Number(event.key);
  if (number >= 1 && number <= sounds.length) choose(number - 1);
  else if (event.key === " ") toggle();
  else if (event.key === "ArrowLeft") seek(sound().currentTime - 1);
  else if (event.key === "ArrowRight") seek(sound().currentTime + 1);
  else return;
  event.preventDefault();
});
show();
