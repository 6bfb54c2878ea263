// Transcribes recordings and the microphone with vosk-browser and the model beside this page.
"use strict";

const SAMPLE_RATE = Number(document.documentElement.dataset.rate);
const BLOCK = 4096; // samples handed over at a time
const element = (id) => document.getElementById(id);

let model = null;
let stopMicrophone = null;

function say(text) { element("state").textContent = text; }

function fail(error) { element("problem").textContent = error.message || String(error); }

function append(text) {
  if (!text) return;
  const line = document.createElement("p");
  line.textContent = text;
  element("text").insertBefore(line, element("partial"));
}

// A recogniser and what it says. The worker answers every block once, in order, with a partial or (in a pause) a whole
// result; so the answer after as many as there were blocks is the last one.
function listen() {
  const recognizer = new model.KaldiRecognizer(SAMPLE_RATE);
  let blocks = 0, answers = 0, resolve = null;
  const answered = () => { answers += 1; if (resolve && answers > blocks) resolve(); };
  const failed = new Promise((_, reject) => recognizer.on("error", (message) => reject(new Error(message.error))));
  failed.catch(fail);
  recognizer.on("partialresult", (message) => {
    element("partial").textContent = message.result.partial;
    answered();
  });
  recognizer.on("result", (message) => {
    element("partial").textContent = "";
    append(message.result.text);
    answered();
  });
  return {
    hear(samples) { blocks += 1; recognizer.acceptWaveformFloat(samples, SAMPLE_RATE); },
    async finish() {
      const ended = new Promise((done) => { resolve = done; });
      recognizer.retrieveFinalResult();
      await Promise.race([ended, failed]);
      recognizer.remove();
    },
  };
}

async function transcribeFile(file) {
  const context = new OfflineAudioContext(1, 1, SAMPLE_RATE); // decodes to the model's rate
  const sound = await context.decodeAudioData(await file.arrayBuffer());
  const samples = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    const values = sound.getChannelData(channel);
    for (let place = 0; place < values.length; place++) samples[place] += values[place] / sound.numberOfChannels;
  }
  const recognizer = listen();
  for (let place = 0; place < samples.length; place += BLOCK) recognizer.hear(samples.slice(place, place + BLOCK));
  await recognizer.finish();
}

async function startMicrophone() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: true } });
  const context = new AudioContext({ sampleRate: SAMPLE_RATE });
  const recognizer = listen();
  const source = context.createMediaStreamSource(stream);
  const node = context.createScriptProcessor(BLOCK, 1, 1);
  node.onaudioprocess = (event) => recognizer.hear(event.inputBuffer.getChannelData(0).slice());
  source.connect(node);
  node.connect(context.destination);
  return async () => {
    node.disconnect();
    source.disconnect();
    stream.getTracks().forEach((track) => track.stop());
    await recognizer.finish();
    await context.close();
  };
}

function loaded() {
  return new Promise((resolve, reject) => {
    const found = new Vosk.Model("model.tar.gz", -1);
    const unreadable = "model.tar.gz beside this page is missing or no model: copy the whole folder again";
    found.on("load", (message) => (message.result ? resolve(found) : reject(new Error(unreadable))));
    found.on("error", (message) => reject(new Error(`${unreadable} (${message.error})`)));
  });
}

async function begin() {
  if (typeof Vosk === "undefined") {
    throw new Error("vosk.js is missing beside this page: npm install vosk-browser@0.0.8, then copy " +
                    "node_modules/vosk-browser/dist/vosk.js here");
  }
  if (location.protocol === "file:") {
    throw new Error("a page from a file may not read the model: run `python -m http.server` here and open " +
                    "http://localhost:8000");
  }
  const loading = performance.now();
  model = await loaded();
  say(`Ready: the model was loaded in ${((performance.now() - loading) / 1000).toFixed(1)} s.`);
  element("file").disabled = element("microphone").disabled = false;
  document.body.dataset.state = "ready";
}

element("file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  element("problem").textContent = "";
  say(`Listening to ${file.name}.`);
  document.body.dataset.state = "busy";
  try {
    await transcribeFile(file);
    say(`${file.name}: done.`);
    document.body.dataset.state = "done";
  } catch (error) {
    fail(new Error(`${file.name}: ${error.message || error}`));
    document.body.dataset.state = "failed";
  }
  event.target.value = "";
});

element("microphone").addEventListener("click", async () => {
  const button = element("microphone");
  button.disabled = true;
  try {
    if (stopMicrophone) {
      await stopMicrophone();
      stopMicrophone = null;
      button.textContent = "Microphone";
      say("Stopped.");
      document.body.dataset.state = "done";
    } else {
      stopMicrophone = await startMicrophone();
      button.textContent = "Stop";
      say("Listening to the microphone.");
      document.body.dataset.state = "listening";
    }
  } catch (error) {
    fail(error);
    document.body.dataset.state = "failed";
  }
  button.disabled = false;
});

begin().catch((error) => { fail(error); document.body.dataset.state = "failed"; say("Not ready."); });
