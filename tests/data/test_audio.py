"""The sound pipelines: what comes out, in which order, by which decoder, and what is refused."""

import json

import numpy as np
import pytest
import tensorflow as tf

from keras_vqvae import WaveNet, functional
from keras_vqvae.data import audio, audio_corpus, audio_files

pytestmark = pytest.mark.tensorflow  # pipelines know no backend

soundfile = pytest.importorskip("soundfile", reason="the extra `audio` is not installed")
soxr = pytest.importorskip("soxr", reason="the extra `audio` is not installed")

RATE = 16000
needs_native = pytest.mark.skipif(
    bool(audio_files.native_problem()), reason=f"tensorflow-io: {audio_files.native_problem()}"
)
DECODERS = [pytest.param("tensorflow-io", marks=needs_native), "soundfile"]
KINDS = [
    ("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("wav", "PCM_U8"), ("flac", "PCM_16"),
    ("flac", "PCM_24"), ("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", "MPEG_LAYER_III"),
]  # fmt: skip


def noise(samples, rate=RATE, highest=3000.0, seed=0):
    """Noise without frequencies above `highest`, of which the resamplers differ."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=samples))
    spectrum[np.fft.rfftfreq(samples, 1 / rate) > highest] = 0
    wave = np.fft.irfft(spectrum, samples)
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def ramps(lengths):
    """Waveforms of which sample j of number i is i / 100 + j / 1e6."""
    return [(i / 100 + np.arange(n) / 1e6).astype(np.float32) for i, n in enumerate(lengths)]


def write(path, samples, rate=RATE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return path


def rows(dataset, batches=None):
    """All examples, as lists of what each batch's leaf has, numbers and not tensors."""
    taken = dataset if batches is None else dataset.take(batches)
    return [row for batch in taken for row in batch.numpy()]


@pytest.fixture
def folder(tmp_path):
    """Ten files of three speakers, number i has 20000 + 100 i samples."""
    for i in range(10):
        write(tmp_path / f"speaker{i % 3}" / f"{i}.wav", noise(20000 + 100 * i, seed=i))
    return tmp_path


# Decoding and resampling


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("suffix", "subtype"), KINDS)
def test_every_kind_of_file_is_decoded(tmp_path, suffix, subtype, decoder):
    path = write(tmp_path / f"a.{suffix}", noise(RATE), subtype=subtype)
    ((batch),) = audio.from_folder(tmp_path, RATE, decoder=decoder)
    expected = soundfile.read(path, dtype="float32")[0]
    assert batch["length"].numpy() == [RATE] and batch["waveform"].dtype == tf.float32
    np.testing.assert_allclose(batch["waveform"][0], expected, atol=1e-6)
    error = np.sqrt(np.mean((expected - noise(RATE)) ** 2)) / noise(RATE).std()
    assert error < 0.3, "not what was written"


@needs_native
@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 44100, 48000])
def test_both_resamplers_agree(tmp_path, rate):
    highest = 0.69 * min(rate, RATE) / 2
    write(tmp_path / "a.flac", noise(rate + 123, rate, highest), rate)
    (native,) = audio.from_folder(tmp_path, RATE, decoder="tensorflow-io")
    (python,) = audio.from_folder(tmp_path, RATE, decoder="soundfile")
    assert native["length"] == python["length"] == audio_files.length_at(rate + 123, rate, RATE)
    difference = np.abs(native["waveform"] - python["waveform"])[0]
    assert difference[200:-200].max() < 1e-4
    assert difference.max() < 1e-2  # their filters differ in length, and so in how they begin


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_resampling_does_not_shift(tmp_path, rate, decoder):
    times = np.arange(rate) / rate
    write(tmp_path / "a.wav", np.sin(2 * np.pi * 440 * times) * 0.5, rate, subtype="FLOAT")
    (batch,) = audio.from_folder(tmp_path, RATE, decoder=decoder)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(batch["waveform"][0, 500:-500], expected[500:-500], atol=1e-4)


@needs_native
def test_decoders_agree_on_a_folder_of_everything(tmp_path):
    for i, (suffix, subtype) in enumerate(KINDS):
        rate = 48000 if subtype == "OPUS" else (RATE, 22050)[i % 2]
        stereo = np.stack([noise(rate, rate, seed=i), noise(rate, rate, seed=99)], axis=1)
        write(tmp_path / f"{i}.{suffix}", stereo if i % 3 else stereo[:, 0], rate, subtype=subtype)
    native, python = (
        rows(audio.from_folder(tmp_path, RATE, 8000, seed=1, channels="mix", decoder=decoder), 3)
        for decoder in ("tensorflow-io", "soundfile")
    )
    assert len(native) == len(KINDS)
    np.testing.assert_allclose(native, python, atol=2e-2)  # crops may begin where files do
    assert np.median(np.abs(np.array(native) - python)) < 1e-5


def test_auto_takes_soundfile_where_native_ops_do_not_load(folder, monkeypatch):
    monkeypatch.setattr(audio_files, "native_problem", lambda: "it is not installed")
    assert len(rows(audio.from_folder(folder, RATE, 4000))) == 10
    with pytest.raises(ImportError, match='it is not installed.*decoder="soundfile"'):
        audio.from_folder(folder, RATE, decoder="tensorflow-io")
    with pytest.raises(ValueError, match="`decoder` must be"):
        audio.from_folder(folder, RATE, decoder="ffmpeg")


def test_read(tmp_path):
    path = write(tmp_path / "a.wav", noise(RATE), subtype="FLOAT")
    np.testing.assert_array_equal(audio.read(path), noise(RATE))
    assert audio.read(path, 8000).shape == (8000,)
    with pytest.raises(ValueError, match="16000 Hz: resample=True"):
        audio.read(path, 8000, resample=False)
    with pytest.raises(ValueError, match=r"none\.wav is no file"):
        audio.read(tmp_path / "none.wav")


# Crops, order, speakers


def test_crops_are_a_plain_tensor_and_whole_clips_a_dict(folder):
    crops = audio.from_folder(folder, RATE, 4096, 4)
    assert crops.element_spec == tf.TensorSpec((None, 4096), tf.float32)
    assert int(crops.cardinality()) == 3
    assert [batch.shape[0] for batch in crops] == [4, 4, 2]
    whole = list(audio.from_folder(folder, RATE, batch_size=4, speakers=True))
    assert [sorted(batch) for batch in whole] == [["length", "speaker", "waveform"]] * 3
    first = whole[0]
    # In the order of the paths: speaker0/0, 3, 6, 9.
    np.testing.assert_array_equal(first["length"], [20000, 20300, 20600, 20900])
    np.testing.assert_array_equal(first["speaker"], [0, 0, 0, 0])
    assert first["waveform"].shape == (4, 20900)
    assert np.all(first["waveform"][0, 20000:] == 0) and np.any(first["waveform"][3, 20000:] != 0)


def test_seed_and_epoch_decide_order_and_crops():
    def epochs(seed):
        dataset = audio.from_arrays(ramps([5000] * 20), 100, 8, seed=seed)
        return [np.array(rows(dataset)) for _ in range(3)]

    tf.random.set_seed(1)
    first = epochs(5)
    tf.random.set_seed(2)
    np.testing.assert_array_equal(first, epochs(5))
    assert not np.array_equal(first, epochs(6))

    def numbers(epoch):
        return np.floor(epoch[:, 0] * 100 + 1e-4).astype(int)

    def starts(epoch):
        first_samples = dict(zip(numbers(epoch), epoch[:, 0], strict=True))
        return {i: round((sample - i / 100) * 1e6) for i, sample in first_samples.items()}

    assert all(sorted(numbers(epoch)) == list(range(20)) for epoch in first)
    places = [starts(epoch) for epoch in first]
    assert all(0 <= start <= 4900 for place in places for start in place.values())
    assert all(len(set(place.values())) > 15 for place in places), "each clip its own place"
    assert sum(places[0][i] == places[1][i] for i in range(20)) < 3, "another place each epoch"
    # A run of samples that stood together.
    np.testing.assert_allclose(np.diff(first[0]), 1e-6, atol=1e-7)


def test_without_a_seed_crops_are_the_middle():
    (batch,) = audio.from_arrays(ramps([300, 100, 51]), 100)
    np.testing.assert_allclose(batch[0], ramps([300])[0][100:200])
    np.testing.assert_allclose(batch[1], ramps([0, 100])[1])
    np.testing.assert_array_equal(batch[2, 51:], 0)
    np.testing.assert_allclose(batch[2, :51], ramps([0, 0, 51])[2])


@pytest.mark.parametrize("repeat", [False, True])
def test_start_at_resumes_crops_too(repeat):
    def make():
        return audio.from_arrays(ramps([2000] * 12), 64, 4, seed=3, repeat=repeat)

    whole, resumed = make(), make()
    if repeat:
        expected = rows(whole, 9)[20:]
        resumed.start_at(0, 5)
        found = rows(resumed, 4)
    else:
        expected = (rows(whole), rows(whole)[8:])[1]
        resumed.start_at(1, 2)
        found = rows(resumed)
    np.testing.assert_array_equal(found, expected)


def test_workers_get_their_rows_of_the_same_crops(folder):
    def make(shard):
        return rows(audio.from_folder(folder, RATE, 512, 4, seed=1, shard=shard))

    whole, parts = make(None), [make((0, 2)), make((1, 2))]
    together = np.concatenate(
        [np.concatenate([part[2 * i : 2 * i + 2] for part in parts]) for i in range(2)]
    )
    np.testing.assert_array_equal(together, whole[:8])
    with pytest.raises(ValueError, match="`shard` needs `crop`"):
        audio.from_folder(folder, RATE, batch_size=4, shard=(0, 2))


def test_speakers_from_folders_and_lists(folder):
    dataset = audio.from_folder(folder, RATE, 128, 16, speakers=True)
    (batch,) = dataset
    assert dataset.speaker_names == ["speaker0", "speaker1", "speaker2"]
    assert batch["speaker"].numpy().tolist() == [0] * 4 + [1] * 3 + [2] * 3
    names = ["speaker2", "nobody", "speaker1", "speaker0"]
    (batch,) = audio.from_folder(folder, RATE, 128, 16, speakers=names)
    assert batch["speaker"].numpy().tolist() == [3] * 4 + [2] * 3 + [0] * 3
    with pytest.warns(UserWarning, match="3 of 10 sound files are of other speakers"):
        dataset = audio.from_folder(folder, RATE, 128, 16, speakers=["speaker1", "speaker0"])
    (batch,) = dataset
    assert batch["speaker"].numpy().tolist() == [1] * 4 + [0] * 3
    assert dataset.speaker_names == ["speaker1", "speaker0"]
    with pytest.raises(ValueError, match=r"no file of the speakers \['x'\]; it has speaker0, spe"):
        audio.from_folder(folder, RATE, 128, speakers=["x"])
    with pytest.raises(ValueError, match="must be different names"):
        audio.from_folder(folder, RATE, 128, speakers=["speaker0", "speaker0"])
    write(folder / "loose.wav", noise(2000))
    with pytest.raises(ValueError, match=r"1 files of .* have no speaker: loose\.wav.*sub-folder"):
        audio.from_folder(folder, RATE, 128, speakers=True)
    with pytest.warns(UserWarning, match=r"have no speaker: loose\.wav.*left out"):
        dataset = audio.from_folder(folder, RATE, 128, 16, speakers=True, skip_corrupt=True)
    assert next(iter(dataset))["speaker"].shape == (10,) and len(dataset.speaker_names) == 3
    assert len(rows(audio.from_folder(folder, RATE, 128))) == 11


def test_lists_of_speakers(folder):
    names = np.array(["speaker0", "speaker1", "speaker2"])
    dataset = audio.from_folder(folder, RATE, 128, 16, speakers=names)
    assert dataset.speaker_names == list(names) and type(dataset.speaker_names[0]) is str
    for wrong in ("speaker0", [], np.array([]), [0, 1, 2], ["speaker0", ""], 3, None):
        with pytest.raises(ValueError, match="`speakers` must be True, False or the names of all"):
            audio.from_folder(folder, RATE, 128, speakers=wrong)
    (folder / "list.csv").write_text("path,speaker\nspeaker0/0.wav,ann\n")
    for wrong in ("ann", []):
        with pytest.raises(ValueError, match="`speakers` must be True, False or the names of all"):
            audio.from_manifest(folder / "list.csv", RATE, speakers=wrong)
        with pytest.raises(ValueError, match="`speakers` must be True, False or the names of all"):
            audio.from_librispeech(folder, speakers=wrong)


def test_options_that_there_are_not(folder):
    (folder / "list.csv").write_text("path\nspeaker0/0.wav\n")
    with pytest.raises(TypeError, match="from_manifest has no option `trim_silense`. Did you mean"):
        audio.from_manifest(folder / "list.csv", RATE, trim_silense=True)
    with pytest.raises(TypeError, match="from_vctk has no option `shuffle`. It has .*mu_law"):
        audio.from_vctk(folder, shuffle=True)
    with pytest.raises(TypeError, match="from_librispeech has no option `data_dir`"):
        audio.from_librispeech(folder, data_dir="here")
    for loader in (audio.from_librispeech, audio.from_vctk):
        with pytest.raises(TypeError, match="without a folder has no option `min_samples`"):
            loader(None, min_samples=64)


def test_mu_law_and_speakers_are_what_a_wavenet_takes(folder):
    crops = audio.from_folder(folder, RATE, 256, 5, speakers=True, mu_law=True, seed=0)
    assert sorted(crops.element_spec) == ["codes", "condition"]
    names = crops.speaker_names
    prior = WaveNet(256, len(names), channels=2, skip_channels=2, dilations=(1, 2))
    prior.compile("adam")
    losses = prior.fit(crops, verbose=0).history["loss"]
    whole = audio.from_folder(folder, RATE, None, 5, speakers=True, mu_law=True)
    assert sorted(whole.element_spec) == ["codes", "condition", "length"]
    assert np.isfinite(losses).all() and np.isfinite(prior.evaluate(whole, verbose=0))


@pytest.mark.parametrize("seed", [None, 4])
@pytest.mark.parametrize("name", ["a.flac", "a.wav", "stereo.flac"])
def test_reading_only_the_crop_is_cropping_the_whole(tmp_path, monkeypatch, name, seed):
    for i, length in enumerate((20000, 4001, 700)):
        samples = np.stack([noise(length, seed=i), noise(length, seed=9 + i)], axis=1)
        write(tmp_path / f"{i}{name}", samples if "stereo" in name else samples[:, 0])
    counts = []
    read_samples = audio_files.read_samples

    def noted(path, rate, start=0, count=-1, **options):
        counts.append(count)
        return read_samples(path, rate, start, count, **options)

    monkeypatch.setattr(audio_files, "read_samples", noted)

    def epochs():
        options = {"decoder": "soundfile", "channels": "mix"}
        crops = audio.from_folder(tmp_path, RATE, 1000, seed=seed, **options)
        return [rows(crops) for _ in range(4)]

    parts = epochs()
    assert counts == [1000] * 12
    columns = audio_files.columns

    def whole(files, rate):
        made = columns(files, rate)
        return {**made, "jumps": np.zeros_like(made["jumps"])}

    monkeypatch.setattr(audio_files, "columns", whole)
    np.testing.assert_array_equal(parts, epochs())
    assert counts == [1000] * 12 + [-1] * 12


@needs_native
def test_auto_takes_the_faster_decoder_for_each_file(tmp_path):
    for name, rate in (("a.wav", RATE), ("b.wav", 8000), ("c.flac", RATE), ("d.ogg", RATE)):
        write(tmp_path / name, noise(rate, rate), rate)
    soundfile.write(tmp_path / "e.wav", noise(RATE), RATE, subtype="PCM_U8")
    files = audio_files.inspect(sorted(tmp_path.iterdir()), whole=True)

    def natively(decoder):
        chosen = audio_files.by_decoder(files, RATE, decoder)
        return "".join(file.path.stem for file in chosen if file.kind)

    assert [natively(d) for d in ("auto", "tensorflow-io", "soundfile")] == ["a", "abcd", ""]
    auto, python = (rows(audio.from_folder(tmp_path, RATE, 4000, decoder=d, seed=0))
                    for d in ("auto", "soundfile"))  # fmt: skip
    np.testing.assert_array_equal(auto, python)


def test_mu_law_codes_are_those_of_the_models(folder):
    (waveforms,) = audio.from_folder(folder, RATE, 512, seed=2)
    dataset = audio.from_folder(folder, RATE, 512, seed=2, mu_law=True)
    assert dataset.element_spec == {"codes": tf.TensorSpec((None, 512), tf.int32)}
    (batch,) = dataset
    np.testing.assert_array_equal(
        batch["codes"], np.asarray(functional.mu_law_encode(waveforms.numpy()))
    )
    (whole,) = audio.from_arrays(ramps([10, 20]), mu_law=True, speakers=[4, 2])
    assert sorted(whole) == ["codes", "condition", "length"]
    assert whole["codes"][0, 10:].numpy().tolist() == [128] * 10


def test_silence_is_trimmed(tmp_path):
    silence = np.random.default_rng(0).normal(size=8000).astype(np.float32) * 1e-4
    quiet_then_loud = np.concatenate([silence, noise(6400), silence])
    write(tmp_path / "a.wav", quiet_then_loud)
    (batch,) = audio.from_folder(tmp_path, RATE, trim_silence=True)
    trimmed = audio.trim(audio.read(tmp_path / "a.wav"), RATE)
    np.testing.assert_array_equal(batch["waveform"][0], trimmed)
    assert 6400 - 640 <= len(trimmed) <= 6400 + 640
    np.testing.assert_array_equal(audio.trim(np.zeros(1000, np.float32), RATE), np.zeros(1000))
    with pytest.raises(ValueError, match="shorter than `min_samples`"):
        audio.from_folder(tmp_path, RATE, trim_silence=True, min_samples=8000)
    late = audio.from_folder(tmp_path, RATE, trim_silence=True, min_samples=8000, check=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="after trimming"):
        list(late)


def test_arrays_of_sixteen_bits_are_scaled():
    waveform = noise(1000)
    (batch,) = audio.from_arrays([audio_corpus.quantized(waveform)], 1000)
    np.testing.assert_allclose(batch[0], waveform, atol=2e-5)
    dataset = audio.from_arrays([waveform] * 3, 10, speakers=["b", "a", "b"])
    assert dataset.speaker_names == ["a", "b"]
    assert next(iter(dataset))["speaker"].numpy().tolist() == [1, 0, 1]


# Manifests, corpora


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_manifest(folder, kind):
    path = folder / f"list.{kind}"
    segments = [[0.5, "pau"], [1.25, "a"]]
    fields = [
        {"path": "speaker1/1.wav", "speaker": "ann", "text": 'so, "it" is', "segments": segments},
        {"path": "speaker0/3.wav", "speaker": "bob"},
    ]
    if kind == "csv":
        text = "speaker,path,text,segments\n"
        text += 'ann,speaker1/1.wav,"so, ""it"" is","[[0.5, ""pau""], [1.25, ""a""]]"\n'
        text += "bob,speaker0/3.wav,,\n"
    else:
        text = "\n".join(map(json.dumps, fields)) + "\n\n"
    path.write_text(text)
    first, second = audio.read_manifest(path)
    assert first.text == 'so, "it" is' and first.segments == ((0.5, "pau"), (1.25, "a"))
    assert (second.speaker, second.text, second.segments) == ("bob", "", ())
    dataset = audio.from_manifest(path, RATE, speakers=True)
    (batch,) = dataset
    assert dataset.speaker_names == ["ann", "bob"]
    assert batch["length"].numpy().tolist() == [20100, 20300]
    labels = audio_corpus.labels_at(first.segments, np.array([0.0, 0.49, 0.5, 1.2, 9.0]))
    assert labels.tolist() == ["pau", "pau", "a", "a", "a"]


def test_manifest_rows_that_are_wrong(folder):
    path = folder / "list.csv"
    for text, message in {
        "path,speaker\nspeaker0/0.wav\n": "line 2: it has fewer fields than the first line",
        "path,path\nspeaker0/0.wav,x\n": "must name each column once",
        "path\ngs://bucket/a.wav\n": r"line 2: `path` must be a local path, got 'gs://bucket/a\.wav'",
        'path,segments\na.wav,"[[true, ""a""]]"\n': "line 2: `segments` must be a list of",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            audio.from_manifest(path, RATE)
    path.write_text("path,speaker\nspeaker0/0.wav,ann\nnowhere.wav,ann\n")
    with pytest.raises(ValueError, match=r"1 rows of .*line 3: .*nowhere\.wav"):
        audio.from_manifest(path, RATE)
    with pytest.warns(UserWarning, match=r"1 rows .*point to no file"):
        assert len(rows(audio.from_manifest(path, RATE, 100, skip_corrupt=True))) == 1
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match=r"has no file of the speakers \['bob'\]; it has ann"),
    ):
        audio.from_manifest(path, RATE, 100, skip_corrupt=True, speakers=["bob"])
    path.write_text("path,speaker\nspeaker0/0.wav,\n")
    with pytest.raises(ValueError, match="line 2.*Fill the column in"):
        audio.from_manifest(path, RATE, speakers=True)
    path.write_text("path, speaker\nspeaker0/0.wav, ann \n")
    assert audio.from_manifest(path, RATE, 100, speakers=True).speaker_names == ["ann"]
    path.write_text('path,segments\nspeaker0/0.wav,"[[0.1, ""a""]]"\n')
    with pytest.warns(UserWarning, match="segments.* are of whole files"):
        audio.from_manifest(path, RATE, 100, trim_silence=True)
    path.write_text("path,speaker\nspeaker0/0.wav,\nspeaker1/1.wav,ann\n")
    with pytest.warns(UserWarning, match="1 rows of .* have no `speaker`: line 2. They are left"):
        dataset = audio.from_manifest(path, RATE, 100, speakers=True, skip_corrupt=True)
    assert dataset.speaker_names == ["ann"] and len(list(dataset)) == 1
    for text, message in [
        ("file\na.wav\n", "must name its columns"),
        ("path,speaker\n,ann\n", "line 2: it has no `path`"),
        ("path\n", "has no row"),
        ('path,segments\na.wav,"[[2, ""a""], [1, ""b""]]"\n', "line 2: the ends of `segments`"),
        ("path,segments\na.wav,pau\n", "line 2: `segments` must be a list"),
        ('path,segments\na.wav,"[""0a"", ""1b""]"\n', "line 2: `segments` must be a list"),
        ("path,text,speaker\na.wav,Hello, world,ann\n", "line 2: it has more fields.*in quotes"),
        (f"path,text\na.wav,{'a' * 140_000}\n", "line 2: it cannot be read.*JSONL"),
        (f"path\n{'a' * 5000}.wav\n", "1 rows of .* point to no file"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            audio.from_manifest(path, RATE)
    lines = folder / "list.jsonl"
    lines.write_text('{"path": "a.wav"}\nnonsense\n')
    with pytest.raises(ValueError, match="line 2: must be one JSON object a line"):
        audio.read_manifest(lines)
    lines.write_text('{"path": "a.wav", "speaker": ["ann"]}\n')
    with pytest.raises(ValueError, match="line 1: `speaker` must be a text, got .'ann'"):
        audio.read_manifest(lines)
    with pytest.raises(ValueError, match="must be a .csv or a .jsonl"):
        audio.read_manifest(folder / "list.txt")
    with pytest.raises(ValueError, match="cannot be read"):
        audio.read_manifest(folder / "none.csv")


def test_vctk_and_librispeech_folders(tmp_path):
    for speaker in ("p225", "p226"):
        for mic in (1, 2):
            name = f"wav48_silence_trimmed/{speaker}/{speaker}_001_mic{mic}.flac"
            write(tmp_path / name, noise(4800 * mic, 48000), 48000)
    write(tmp_path / "wav48_silence_trimmed/log.wav", noise(100))
    dataset = audio.from_vctk(tmp_path, mic=2, speakers=True)
    (batch,) = dataset
    assert dataset.speaker_names == ["p225", "p226"]
    assert batch["length"].numpy().tolist() == [9600, 9600]
    write(tmp_path / "VCTK" / "wav48" / "p300" / "p300_007.wav", noise(480, 48000), 48000)
    assert len(rows(audio.from_vctk(tmp_path / "VCTK", 16000, 100))) == 1

    libri = tmp_path / "LibriSpeech" / "dev-clean"
    for speaker in (84, 1272):
        write(libri / f"{speaker}/121/{speaker}-121-0000.flac", noise(3000))
    dataset = audio.from_librispeech(tmp_path / "LibriSpeech", crop=1000, speakers=["84", "1272"])
    (batch,) = dataset
    assert batch["speaker"].numpy().tolist() == [1, 0]  # paths are in the order of their names
    # Of a part, by the name that it has in TensorFlow Datasets.
    write(libri.parent / "train-clean-100" / "9" / "1" / "9-1-0000.flac", noise(3000))
    for split, there, count in [
        (None, libri.parent, 3),
        ("dev_clean", libri.parent, 2),
        ("dev-clean", libri.parent, 2),
        ("dev_clean", libri, 2),
        ("train_clean100", libri.parent, 1),
    ]:
        assert len(rows(audio.from_librispeech(there, RATE, 100, split=split))) == count
    with pytest.raises(ValueError, match="'test_clean': .* no folder test-clean; it has dev-clean"):
        audio.from_librispeech(libri.parent, split="test_clean")
    with pytest.raises(ValueError, match="holds no file of VCTK"):
        audio.from_vctk(libri)
    with pytest.raises(ValueError, match="`mic` must be 1 or 2"):
        audio.from_vctk(tmp_path, mic=3)


@pytest.fixture(scope="module")
def tiny_tfds(tmp_path_factory):
    from keras_vqvae.data import images

    try:
        tfds = images.import_tfds()
    except ImportError as error:
        pytest.skip(str(error))

    class KerasVqvaeTinySpeech(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        shape = (None,)

        def _info(self):
            features = {
                "speech": tfds.features.Audio(shape=self.shape, sample_rate=8000),
                "speaker_id": np.int64,
                "text": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(6):
                samples = audio_corpus.quantized(noise(4000 + i, 8000)).astype(np.int64)
                if len(self.shape) > 1:
                    samples = np.stack([samples, np.zeros_like(samples)], 1)
                yield i, {"speech": samples, "speaker_id": 100 - i % 2, "text": "so"}

    class KerasVqvaeTinyStereo(KerasVqvaeTinySpeech):
        shape = (None, 2)

    data_dir = tmp_path_factory.mktemp("tfds")
    for builder in (KerasVqvaeTinySpeech, KerasVqvaeTinyStereo):
        builder(data_dir=data_dir).download_and_prepare()
    return data_dir


@pytest.mark.parametrize("decoder", DECODERS)
def test_tfds(tiny_tfds, decoder):
    name = "keras_vqvae_tiny_speech"
    options = {"data_dir": tiny_tfds, "decoder": decoder}
    dataset = audio.from_tfds(name, "train", RATE, speakers=True, **options)
    (batch,) = dataset
    assert dataset.speaker_names == ["100", "99"]
    assert sorted(batch["length"].numpy()) == [8000 + 2 * i for i in range(6)]
    speaker = {int(n): int(s) for n, s in zip(batch["length"], batch["speaker"], strict=True)}
    assert speaker == {8000 + 2 * i: i % 2 for i in range(6)}
    row = int(np.argmin(batch["length"]))
    expected = soxr.resample(noise(4000, 8000), 8000, RATE)
    np.testing.assert_allclose(batch["waveform"][row, 200:7800], expected[200:7800], atol=1e-3)

    def epochs():
        crops = audio.from_tfds(name, "train", RATE, 1000, 2, seed=1, trim_silence=True, **options)
        assert int(crops.cardinality()) == 3
        return [rows(crops), rows(crops)]

    first = epochs()
    np.testing.assert_array_equal(first, epochs())
    assert not np.array_equal(*first)


def test_tfds_of_several_channels(tiny_tfds):
    name, options = "keras_vqvae_tiny_stereo", {"sample_rate": 8000, "data_dir": tiny_tfds}
    with pytest.raises(ValueError, match="'speech' of several channels: channels=.mix. averages"):
        audio.from_tfds(name, "train", **options)
    with pytest.raises(ValueError, match="`channels` must be"):
        audio.from_tfds(name, "train", **options, channels="left")
    (mixed,) = audio.from_tfds(name, "train", **options, channels="mix")
    (mono,) = audio.from_tfds("keras_vqvae_tiny_speech", "train", **options)
    np.testing.assert_array_equal(mixed["waveform"], mono["waveform"] / 2)


def test_tfds_refused(tiny_tfds):
    name = "keras_vqvae_tiny_speech"
    with pytest.raises(ValueError, match="has 8000 Hz, not 16000"):
        audio.from_tfds(name, "train", RATE, data_dir=tiny_tfds, resample=False)
    with pytest.raises(ValueError, match="`split` 'dev' is none"):
        audio.from_tfds(name, "dev", RATE, data_dir=tiny_tfds)
    with pytest.raises(ValueError, match="no TensorFlow Dataset"):
        audio.from_tfds("keras_vqvae_nothing", "train", RATE)
    dataset = audio.from_tfds(name, "train", RATE, data_dir=tiny_tfds, speakers=["100"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="`speakers` lacks the speaker 99"):
        list(dataset)


# Bad input


def test_bad_files_are_named_or_skipped_and_counted(folder):
    bad = folder / "speaker0"
    (bad / "text.wav").write_text("no sound at all")
    for name in ("cut.wav", "cut.flac", "cut.mp3"):
        content = write(bad / name, noise(40000)).read_bytes()
        (bad / name).write_bytes(content[: len(content) // 2])
    holes = noise(3000)
    holes[7] = np.nan
    write(bad / "nan.wav", holes, subtype="FLOAT")
    write(bad / "clipped.wav", np.clip(noise(3000) * 9, -1, 1))
    write(bad / "empty.wav", np.zeros(0, np.float32))
    for name, subtype in (("cut.ogg", "VORBIS"), ("opus.ogg", "OPUS")):
        content = write(bad / name, noise(400000), 48000, subtype=subtype).read_bytes()
        (bad / name).write_bytes(content[: len(content) // 2])
    # Of a stream: cut between two pages, all that is there is whole.
    content = write(bad / "page.ogg", noise(40000)).read_bytes()
    (bad / "page.ogg").write_bytes(content[: content.rfind(b"OggS")])
    # As an encoder leaves it that could not go back to write how long it became.
    content = bytearray(write(bad / "pipe.flac", noise(4000)).read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (bad / "pipe.flac").write_bytes(content)
    (bad / "nothing.mp3").write_bytes(b"")
    (bad / "lost.wav").symlink_to(bad / "elsewhere.wav")
    write(bad / "loud.wav", noise(3000) * 30000, subtype="FLOAT")
    names = {
        "text.wav",
        "cut.wav",
        "cut.flac",
        "cut.mp3",
        "nan.wav",
        "clipped.wav",
        "empty.wav",
        "loud.wav",
        "cut.ogg",
        "opus.ogg",
        "page.ogg",
        "pipe.flac",
        "nothing.mp3",
        "lost.wav",
    }

    good, problems = audio.check_folder(folder)
    assert len(good) == 10 and {path.name for path in problems} == names
    said = {path.name: problem for path, problem in problems.items()}
    assert "cannot be read" in said["text.wav"] and "NaN" in said["nan.wav"]
    assert "clipped" in said["clipped.wav"] and "clipped" in said["loud.wav"]
    assert said["empty.wav"] == "is empty" and "is empty" in said["nothing.mp3"]
    for name in ("cut.wav", "cut.ogg", "opus.ogg", "page.ogg"):
        assert "is cut off" in said[name], name
    assert "does not say how long it is" in said["pipe.flac"] and "No such" in said["lost.wav"]

    with pytest.raises(
        ValueError, match=r"14 sound files .*clipped\.wav.*and 11 more.*skip_corrupt"
    ):
        audio.from_folder(folder, RATE, 100)
    with pytest.warns(UserWarning, match="14 sound files cannot be used.*left out") as warned:
        dataset = audio.from_folder(folder, RATE, 100, skip_corrupt=True, speakers=True)
    assert warned[0].filename == __file__
    assert sum(len(batch["speaker"]) for batch in dataset) == 10
    with pytest.raises(ValueError, match=r"nan\.wav holds NaN"):
        audio.read(bad / "nan.wav")


def test_clipped_sound_can_be_allowed(tmp_path):
    loud = np.clip(noise(3000) * 9, -1, 1)
    path = write(tmp_path / "ann" / "loud.wav", loud * 1.5, subtype="FLOAT")
    for refused in (audio.read, lambda path: audio.from_folder(tmp_path, RATE)):
        with pytest.raises(ValueError, match='is clipped: .*clipped="allow" takes it'):
            refused(path)
    np.testing.assert_array_equal(
        audio.read(path, clipped="allow"), np.clip(loud * np.float32(1.5), -1, 1)
    )
    assert audio.check_folder(tmp_path, clipped="allow") == ([path], {})
    (tmp_path / "list.csv").write_text("path\nann/loud.wav\n")
    for dataset in (
        audio.from_folder(tmp_path, RATE, clipped="allow"),
        audio.from_manifest(tmp_path / "list.csv", RATE, clipped="allow"),
    ):
        (batch,) = dataset
        assert np.abs(batch["waveform"]).max() == 1
    with pytest.raises(ValueError, match="is clipped"):
        audio.from_arrays([loud])
    np.testing.assert_array_equal(rows(audio.from_arrays([loud], 3000, clipped="allow")), [loud])
    for call in (audio.read, audio.check_folder, lambda _, **o: audio.from_arrays([loud], **o)):
        with pytest.raises(ValueError, match='`clipped` must be "refuse" or "allow"'):
            call(path, clipped=True)
    holes = noise(100)
    holes[3] = np.nan
    write(tmp_path / "nan.wav", holes, subtype="FLOAT")
    with pytest.raises(ValueError, match="holds NaN"):
        audio.read(tmp_path / "nan.wav", clipped="allow")


@pytest.mark.parametrize("decoder", DECODERS)
def test_without_the_check_bad_files_are_named_when_they_come(tmp_path, decoder):
    holes = noise(3000)
    holes[1500] = np.nan  # in the crop, which may be all that is read
    write(tmp_path / "nan.wav", holes, subtype="FLOAT")
    dataset = audio.from_folder(tmp_path, RATE, 100, check=False, decoder=decoder)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"nan\.wav holds NaN"):
        list(dataset)
    (tmp_path / "nan.wav").unlink()
    with pytest.raises(tf.errors.OpError, match=r"nan\.wav"):
        list(dataset)


def test_wrong_formats_are_refused_with_the_cure(folder, tmp_path):
    stereo = np.stack([noise(4000), noise(4000, seed=1)], axis=1)
    write(folder / "speaker0" / "two.wav", stereo, subtype="FLOAT")
    with pytest.raises(ValueError, match=r'1 of 11 .*two\.wav with 2 channels: channels="mix"'):
        audio.from_folder(folder, RATE)
    (batch,) = audio.from_folder(folder, RATE, channels="mix")
    row = int(np.argmin(batch["length"]))
    np.testing.assert_allclose(batch["waveform"][row, :4000], stereo.mean(axis=1), atol=1e-6)
    (folder / "speaker0" / "two.wav").unlink()
    with pytest.raises(ValueError, match="10 of 10 .* 16000 Hz: resample=True"):
        audio.from_folder(folder, 8000, resample=False)
    with pytest.warns(UserWarning, match=r"1 of 10 clips are shorter than crops of 20050 samples"):
        audio.from_folder(folder, RATE, 20050, 2)
    with pytest.warns(UserWarning, match=r"1 of 2 clips are shorter .* `min_samples=8`"):
        audio.from_arrays([np.zeros(7, "float32"), np.zeros(8, "float32")], 8, 2)
    with pytest.raises(ValueError, match=r"0\.wav is shorter than `min_samples`: 20000"):
        audio.from_folder(folder, RATE, min_samples=20050)
    with pytest.warns(UserWarning, match="1 sound files"):
        assert len(list(audio.from_folder(folder, RATE, None, 1, min_samples=20050,
                                          skip_corrupt=True))) == 9  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 0}, "`crop` must be a positive integer"),
        ({"crop": 10, "min_samples": 20}, "`crop` must be at least `min_samples`"),
        ({"sample_rate": 0}, "`sample_rate` must be"),
        ({"batch_size": 0}, "`batch_size` must be"),
        ({"min_samples": 0}, "`min_samples` must be"),
        ({"channels": "stereo"}, "`channels` must be"),
        ({"clipped": "no"}, "`clipped` must be"),
        ({"seed": -1}, "`seed` must be"),
    ],
)
def test_arguments_out_of_range(folder, options, message):
    with pytest.raises(ValueError, match=message):
        audio.from_folder(folder, **{"sample_rate": RATE, **options})


def test_folders_that_are_links_are_entered(folder, tmp_path):
    chosen = tmp_path / "chosen"
    (chosen / "own").mkdir(parents=True)
    write(chosen / "own" / "a.wav", noise(2000))
    (chosen / "linked").symlink_to(folder / "speaker1")
    (chosen / "own" / "back").symlink_to(chosen)  # which would go on without end
    dataset = audio.from_folder(chosen, RATE, 128, 16, speakers=True)
    assert dataset.speaker_names == ["linked", "own"]
    assert next(iter(dataset))["speaker"].numpy().tolist() == [0] * 3 + [1]
    good, problems = audio.check_folder(chosen)
    assert len(good) == 4 and not problems


def test_folders_without_sound(tmp_path):
    with pytest.raises(ValueError, match="is not a folder that exists"):
        audio.from_folder(tmp_path / "none", RATE)
    with pytest.raises(ValueError, match="holds no sound file"):
        audio.from_folder(tmp_path, RATE)
    (tmp_path / "a.wav").write_text("nothing")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no sound file that can be"):
        audio.from_folder(tmp_path, RATE, skip_corrupt=True)


def test_bad_arrays_are_named():
    good = noise(1000)
    nan = good.copy()
    nan[5] = np.nan
    for waveforms, message in [
        ([], "must not be empty"),
        (
            [good, good.astype(np.float64)],
            "must be all float32, or all int16, got float32, float64",
        ),
        ([good, np.stack([good, good])], r"`waveforms\[1\]` must be mono.*\.mean\(axis=0\)"),
        ([good, good[:5]], r"`waveforms\[1\]` is too short: 5 samples, of at least 100"),
        ([good, nan], r"`waveforms\[1\]` holds NaN"),
        ([good, np.clip(good * 9, -1, 1)], r"`waveforms\[1\]` is clipped"),
        ([np.append(good, np.float32(1.5))], "must be in .-1, 1., got values up to 1.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            audio.from_arrays(waveforms, min_samples=100)
    with pytest.raises(ValueError, match=r"shape \(1000, 2\) would be 1000 clips.*stereo"):
        audio.from_arrays(np.stack([good, good], axis=1))
    with pytest.raises(ValueError, match="`speakers` must be 1 ids or names"):
        audio.from_arrays([good], speakers=[1, 2])
    with pytest.raises(ValueError, match="`speakers` must be ids from 0, got -1"):
        audio.from_arrays([good], speakers=[-1])
