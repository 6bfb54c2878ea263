// Transcribe 16-bit wav files with this directory: node transcribe.cjs FILE.wav ...   (npm install sherpa-onnx)
// Every file of the directory is compared with manifest.json first.
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const path = require('path');

function fail(message) {
  console.error(`error: ${message}`);
  process.exit(1);
}

function checkedManifest() {
  const file = path.join(__dirname, 'manifest.json');
  let manifest;
  try {
    manifest = JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch (error) {
    fail(`${file}: cannot be read (${error.message}); copy the whole directory again`);
  }
  if (manifest.format_version !== 1) {
    fail(`${file}: format version ${manifest.format_version}, this script reads 1; export again`);
  }
  for (const [name, entry] of Object.entries(manifest.files)) {
    const one = path.join(__dirname, name);
    if (!fs.existsSync(one)) fail(`${one}: missing; copy the whole directory again`);
    const digest = crypto.createHash('sha256').update(fs.readFileSync(one)).digest('hex');
    if (digest !== entry.sha256) {
      fail(`${one}: changed or damaged since export (sha256 differs); copy the whole directory again`);
    }
  }
  return manifest;
}

const files = process.argv.slice(2);
if (files.length === 0) fail('give one or more wav files: node transcribe.cjs FILE.wav ...');
const facts = checkedManifest().facts;

let sherpa;
try {
  sherpa = require('sherpa-onnx');
} catch (error) {
  try {  // installed where the command is given, not beside this script
    sherpa = require(require.resolve('sherpa-onnx', {paths: [process.cwd()]}));
  } catch (again) {
    fail('sherpa-onnx is not installed: npm install sherpa-onnx');
  }
}

const recognizer = sherpa.createOnlineRecognizer({
  featConfig: {sampleRate: facts.sample_rate, featureDim: facts.feature_dim},
  modelConfig: {
    zipformer2Ctc: {model: path.join(__dirname, 'model.onnx')},
    tokens: path.join(__dirname, 'tokens.txt'),
    numThreads: 1, provider: 'cpu', debug: 0, modelType: '',
  },
  ctcFstDecoderConfig: {graph: path.join(__dirname, 'HCLG.fst'), maxActive: facts.max_active},
  decodingMethod: 'greedy_search',
});

// Pieces of at most 30 s, cut at the quietest place of the last third: time does not grow with the length squared.
function* pieces(samples, rate) {
  const limit = 30 * rate, width = Math.floor(rate / 5);
  let begin = 0;
  while (samples.length - begin > limit) {
    const from = begin + Math.floor(2 * limit / 3);
    let energy = 0;
    for (let i = from; i < from + width; ++i) energy += samples[i] ** 2;
    let least = energy, cut = from;
    for (let i = from; i + width < begin + limit; ++i) {
      energy += samples[i + width] ** 2 - samples[i] ** 2;
      if (energy < least) [least, cut] = [energy, i + 1];
    }
    cut += Math.floor(width / 2);
    yield samples.subarray(begin, cut);
    begin = cut;
  }
  if (samples.length > begin) yield samples.subarray(begin);
}

for (const file of files) {
  if (!fs.existsSync(file)) fail(`${file}: no such file`);
  if (fs.readFileSync(file).subarray(0, 4).toString('latin1') !== 'RIFF') fail(`${file}: not a wav file`);
  const wave = sherpa.readWave(path.resolve(file));
  const words = [];
  for (const samples of pieces(wave.samples, wave.sampleRate)) {
    const stream = recognizer.createStream();
    stream.acceptWaveform(wave.sampleRate, samples);
    stream.acceptWaveform(wave.sampleRate, new Float32Array(Math.floor(facts.tail_seconds * wave.sampleRate)));
    stream.inputFinished();
    while (recognizer.isReady(stream)) recognizer.decode(stream);
    words.push(...recognizer.getResult(stream).text.split(/\s+/).filter(Boolean));
    stream.free();
  }
  console.log(files.length > 1 ? `${file}\t${words.join(' ')}` : words.join(' '));
}
recognizer.free();
