"""Engines: whichever runs a generator, on whatever thread, the picture is the same."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import openvino
import pytest
import torch
from helpers import blend, texture

from cyclegan import networks, runtime
from cyclegan.errors import DeviceError
from cyclegan.images import to_images, to_tensor
from cyclegan.networks import Generator, GeneratorConfig
from cyclegan.runtime import CUDAEngine, OpenVINOEngine, TorchEngine, make_engine, resolve_device

TINY = GeneratorConfig(filters=4, blocks=2)
VARIANTS = {
    "stem1": TINY,
    "stem2": replace(TINY, stem=2),
    "stem4": replace(TINY, stem=4),
    "transposed": replace(TINY, upsample="transposed"),
    "separable": replace(TINY, separable=True),
    "mask": replace(TINY, mask=True),
    "pooled-skip": replace(TINY, skip=True, skip_pool=4),
    "all": replace(TINY, stem=2, upsample="transposed", separable=True, mask=True),
}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def vivid(config: GeneratorConfig) -> Generator:
    """A generator whose pictures use the whole range, so that differences between engines would show."""
    torch.manual_seed(3)
    generator = Generator(config).eval().requires_grad_(False)
    generator.head[0].weight.mul_(20)
    return generator


def pictures(count: int, size: int = 48) -> np.ndarray:
    return np.stack([texture(size, size, seed) for seed in range(count)])


def expected(generator: Generator, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return to_images(generator(to_tensor(images)))


def largest_difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_openvino_paints_what_pytorch_paints(config):
    generator, images = vivid(config), pictures(3)
    wanted = expected(generator, images)
    assert wanted.std() > 20  # a grey picture would prove nothing
    engine = make_engine(generator, 48, engine="openvino")
    assert isinstance(engine, OpenVINOEngine)
    made = engine(images)
    assert made.shape == images.shape and made.dtype == np.uint8
    assert largest_difference(made, wanted) <= 1


def test_torch_paints_what_the_generator_paints():
    generator, images = vivid(TINY), pictures(2)
    engine = make_engine(generator, 48, engine="torch")
    assert isinstance(engine, TorchEngine)
    assert np.array_equal(engine(images), expected(generator, images))


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_one_picture_or_many(engine):
    images = pictures(3)
    run = make_engine(vivid(TINY), 48, engine=engine)
    together, apart = run(images), np.concatenate([run(image[None]) for image in images])
    assert largest_difference(together, apart) <= 1
    assert run(images[:1]).shape == (1, 48, 48, 3)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_generator_that_changes_nothing_changes_no_pixel(engine):
    generator = vivid(VARIANTS["mask"])
    blend(generator, alpha=0)
    images = pictures(2)
    assert np.array_equal(make_engine(generator, 48, engine=engine)(images), images)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_read_only_pictures_are_welcome_and_stay_as_they_are(engine):
    images = pictures(1)
    images.setflags(write=False)
    make_engine(vivid(TINY), 48, engine=engine)(images)
    assert np.array_equal(images, pictures(1))


def test_the_cpu_runs_openvino_unless_told_otherwise():
    assert isinstance(make_engine(vivid(TINY), 32), OpenVINOEngine)
    assert isinstance(make_engine(vivid(TINY), 32, "cpu", "auto"), OpenVINOEngine)


def test_an_engine_keeps_its_weights_when_the_generator_goes_on_learning():
    generator, images = vivid(TINY), pictures(1)
    engines = [make_engine(generator, 48, engine=name) for name in ("torch", "openvino")]
    wanted = expected(generator, images)
    for weight in generator.parameters():
        weight.zero_()
    assert all(largest_difference(engine(images), wanted) <= 1 for engine in engines)


@pytest.mark.parametrize(
    ("device", "engine"), [("cpu", "torch"), ("cpu", "openvino"), pytest.param("cuda", "auto", marks=needs_cuda)]
)
def test_every_thread_gets_its_own_picture(device, engine):
    generator, images = vivid(VARIANTS["stem2"]), pictures(8)
    wanted = expected(generator, images)
    run = make_engine(generator, 48, device, engine)
    near = 1 if device == "cpu" else 12  # half precision
    start = threading.Barrier(8)

    def work(i):
        start.wait()
        return [run(images[i : i + 1])[0] for _ in range(4)]

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(work, range(8)))
    for i in range(8):
        assert all(largest_difference(picture, wanted[i]) <= near for picture in made[i])
        assert all(largest_difference(wanted[i], wanted[j]) > 20 for j in range(8) if j != i)  # a mix-up would show


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_results_are_not_overwritten_by_the_next_call(device):
    images = pictures(2)
    run = make_engine(vivid(TINY), 48, device)
    first = run(images[:1])
    kept = first.copy()
    run(images[1:])
    assert np.array_equal(first, kept)


# Devices


def test_auto_takes_the_best_device_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device() == resolve_device("auto") == resolve_device("cpu") == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device() == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device() == "cuda"
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_this_machine_lacks(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError) as caught:
        resolve_device(device)
    assert str(caught.value) == f'The device "{device}" is not available on this machine. Choose auto or cpu.'


@pytest.mark.parametrize("device", ["gpu", "CPU", "cuda:1", ""])
def test_a_device_that_does_not_exist(device):
    with pytest.raises(DeviceError) as caught:
        resolve_device(device)
    assert str(caught.value) == f'There is no device "{device}". Choose auto, cuda, mps, cpu.'


def test_openvino_is_for_the_cpu():
    with pytest.raises(DeviceError) as caught:
        make_engine(vivid(TINY), 48, "cuda", "openvino")
    assert str(caught.value) == 'OpenVINO runs on the CPU only, not on "cuda".'


def test_an_unknown_engine():
    with pytest.raises(ValueError, match="engine must be one of .*, not 'tensorrt'."):
        make_engine(vivid(TINY), 48, "cpu", "tensorrt")


@needs_cuda
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_cuda_paints_what_the_cpu_paints(config):
    generator, images = vivid(config), pictures(3)
    wanted = expected(generator, images)
    engine = make_engine(generator, 48, "cuda")
    assert isinstance(engine, CUDAEngine)
    difference = np.abs(engine(images).astype(int) - wanted)
    # Half precision, in a network whose last layer is made twenty times steeper than it starts.
    assert difference.mean() < 1 and np.percentile(difference, 99) <= 4


@needs_cuda
def test_the_model_itself_stays_on_the_cpu():
    generator = vivid(TINY)
    make_engine(generator, 48, "cuda")
    assert {(weight.device.type, weight.dtype) for weight in generator.parameters()} == {("cpu", torch.float32)}


# Precision


def test_bfloat16_is_close_and_float32_takes_its_place_where_there_is_none(monkeypatch):
    generator, images = vivid(TINY), pictures(2)
    wanted = expected(generator, images)
    monkeypatch.setattr(runtime, "_capabilities", lambda: ["FP32", "INT8"])
    exact = make_engine(generator, 48, precision="bf16")
    assert exact.precision == "f32" and largest_difference(exact(images), wanted) <= 1
    monkeypatch.undo()
    engine = make_engine(generator, 48, precision="bf16")
    assert np.abs(engine(images).astype(int) - wanted).mean() < 3


def test_a_precision_there_is_not():
    with pytest.raises(ValueError, match="precision must be one of .*, not 'int4'."):
        make_engine(vivid(TINY), 48, precision="int4")


# The cache of compiled models


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "cyclegan"


def no_tracing(monkeypatch):
    monkeypatch.setattr(openvino, "convert_model", lambda *args, **kwargs: pytest.fail("compiled again"))


def test_a_model_is_compiled_once_and_the_copy_paints_the_same(cached, monkeypatch):
    generator, images = vivid(TINY), pictures(2)
    first = make_engine(generator, 48)(images)
    no_tracing(monkeypatch)
    again = make_engine(generator, 48)(images)
    assert np.array_equal(first, again)  # in float32 as it was made, where processors would take bfloat16 if left alone


@pytest.mark.parametrize("change", ["weights", "size"])
def test_another_model_does_not_get_the_copy(cached, change):
    generator = vivid(TINY)
    make_engine(generator, 48)
    if change == "weights":
        generator.head[0].bias.add_(0.5)
    size = 32 if change == "size" else 48
    images = pictures(1, size)
    assert largest_difference(make_engine(generator, size)(images), expected(generator, images)) <= 1


def test_an_update_of_the_networks_does_not_get_the_copy(cached, monkeypatch, tmp_path):
    make_engine(vivid(TINY), 48)
    code = tmp_path / "networks.py"
    code.write_text("# another version")
    monkeypatch.setattr(networks, "__file__", str(code))
    make_engine(vivid(TINY), 48)
    assert len(list(cached.glob("*.blob"))) == 2


@pytest.mark.parametrize("damage", [b"", b"x" * 5000])
def test_a_damaged_copy_is_made_again(cached, damage):
    generator, images = vivid(TINY), pictures(1)
    make_engine(generator, 48)
    (file,) = cached.glob("*.blob")
    file.write_bytes(damage or file.read_bytes()[:-100])
    assert largest_difference(make_engine(generator, 48)(images), expected(generator, images)) <= 1


def test_without_a_folder_to_write_to_models_run_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    generator, images = vivid(TINY), pictures(1)
    assert largest_difference(make_engine(generator, 48)(images), expected(generator, images)) <= 1


def test_the_cache_does_not_grow_for_ever(cached, monkeypatch):
    monkeypatch.setattr(runtime, "_CACHED", 2)
    for size in (32, 36, 40):
        make_engine(vivid(TINY), size)
    assert len(list(cached.glob("*.blob"))) == 2


def test_on_a_zerogpu_space_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert resolve_device() == "cpu"
