"""Shared by all tests. KERAS_BACKEND chooses the backend; `python tests/run_all.py` runs the suite once per backend."""

import functools
import gc
import importlib.metadata
import os
import pathlib
import sys

import pytest

from tests import NEEDS_SHARED

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

# Keras is imported inside functions: pytest's process that only hands tests to its workers does without it.

TESTS = pathlib.Path(__file__).parent

#: folders and files whose tests `run_all.py` leaves out under JAX and torch: numpy and tf.data, files and texts, and
#: commands whose library functions are tested on every backend. `EVERY_BACKEND` are exceptions inside them.
BACKEND_FREE = (
    "cli",
    "data",
    "evaluation",
    "examples",
    "export/test_folding.py",
    "export/test_onnx.py",
    "export/test_openvino.py",
    "export/test_own_format.py",
    "export/test_runners.py",
    "export/test_saved_model.py",
    "export/test_verification.py",
    "golden/test_claims.py",
    "inference/test_coco_results.py",
    "inference/test_compiled.py",
    "inference/test_handover.py",
    "inference/test_opened.py",
    "inference/test_sources.py",
    "inference/test_tiles.py",
    "inference/test_video.py",
    "meta_architectures/test_center_net_defaults.py",
    "meta_architectures/test_class_prior.py",
    "meta_architectures/test_from_backbone.py",
    "meta_architectures/test_retinanet_efficientdet.py",
    "meta_architectures/test_starting_weights.py",
    "presets/test_cache.py",
    "presets/test_directory.py",
    "presets/test_download.py",
    "presets/test_strange_files.py",
    "presets/test_hostile_server.py",
    "presets/test_kills.py",
    "presets/test_listing.py",
    "presets/test_packaged.py",
    "presets/test_preset_from_archive.py",
    "presets/test_store.py",
    "presets/test_zoo.py",
    "test_adding.py",
    "test_architecture.py",
    "test_config_bounds.py",
    "test_messages.py",
    "test_files.py",
    "test_kills.py",
    "test_public_names.py",
    "test_words.py",
    "test_registry.py",
    "test_schema.py",
    "test_startup.py",
    "test_visualization.py",
    "text_proto",
    "tf_od_api/test_build.py",
    "tf_od_api/test_build_faster_rcnn.py",
    "tf_od_api/test_convert_kills.py",
    "tf_od_api/test_name_maps.py",
    "tf_od_api/test_restore_litert.py",
    "tf_od_api/test_check_numbers.py",
    "training/test_masks.py",
    "training/test_run_data.py",
    "training/test_start.py",
    "training/test_tensorboard_images.py",
    "transforms/test_geometric.py",
    "transforms/test_upstream_operations.py",
    "transforms/test_photometric.py",
    "weights/test_archives.py",
    "weights/test_checkpoint_file.py",
    "weights/test_crc32c.py",
    "weights/test_keras_applications.py",
    "weights/test_keras_model.py",
    "weights/test_litert.py",
    "weights/test_sources.py",
    "weights/test_tf2_object_checkpoint.py",
    "weights/test_torch_state_dict.py",
)
EVERY_BACKEND = ("data/test_dataset.py", "data/test_pipeline.py", "evaluation/test_callback.py")


def pytest_collection_modifyitems(items):
    """Marks as `backend_free` what no backend can change."""
    for item in items:
        if _is_backend_free(item.path):
            item.add_marker(pytest.mark.backend_free)


@functools.cache
def _is_backend_free(path):
    path = path.relative_to(TESTS) if path.is_relative_to(TESTS) else path
    return any(path.is_relative_to(name) for name in BACKEND_FREE) and path.as_posix() not in EVERY_BACKEND


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Modules and collected tests stay to the end: the garbage collector need not look through them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def _clean_global_state():
    """Each test starts with the float32 policy and a fixed seed, regardless of the one before it."""
    import keras

    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    _forget_traced_gradients()


def _forget_traced_gradients():
    """Frees the graphs of the test's training steps.

    TensorFlow registers every custom gradient that it traces under a name of its own and forgets none, and each holds
    the graph that it was traced in: 40 MB per Faster R-CNN, 12 GB at the end of a run, which the garbage collector
    looks through again and again. The names are needed only while a step is traced.
    """
    framework = sys.modules.get("tensorflow.python.framework.ops")
    if framework is not None:
        gradients = framework.gradient_registry._registry
        for name in [name for name in gradients if name.startswith("CustomGradient-")]:
            del gradients[name]


def pytest_report_header(config):
    return f"keras {importlib.metadata.version('keras')}, backend {os.environ['KERAS_BACKEND']}"


def pytest_terminal_summary(terminalreporter):
    """Counts the tests that need what is beside the repository, so that a fork sees what it did not run."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())]
    count = sum(NEEDS_SHARED in reason for reason in reasons)
    if count:
        terminalreporter.write_line(f"{count} tests skipped: they need ../shared, which is beside the repository")
