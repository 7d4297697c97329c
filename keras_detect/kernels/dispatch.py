"""The one rule that chooses between an operation's native form and its portable one.

Every file of this package holds one operation: its portable form in `keras.ops` and the native ones beside it, held
to the same goldens. A native form imports its framework inside the function.
"""

import contextlib
import contextvars

import keras

_portable = contextvars.ContextVar("keras_detect_portable_kernels", default=False)
_never_compiled = contextvars.ContextVar("keras_detect_never_compiled", default=False)


@contextlib.contextmanager
def portable_kernels():
    """Within this context (while a function is traced, that is) the portable forms are used on every backend.

    For `tf.function(jit_compile=True)`: XLA has no kernel for soft non-maximum suppression, and a slow one for hard.
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


@contextlib.contextmanager
def never_compiled():
    """Within this context a function is traced for another runtime: XLA, whose kernels differ, will not compile it."""
    token = _never_compiled.set(True)
    try:
        yield
    finally:
        _never_compiled.reset(token)


def may_be_compiled():
    """Whether XLA may compile what is traced; `never_compiled` says otherwise."""
    return not _never_compiled.get()


def running(backend):
    """Whether Keras runs on the named backend: "tensorflow", "jax" or "torch"."""
    return keras.backend.backend() == backend


def use_native(backend):
    """Whether Keras runs on the named backend and `portable_kernels` does not forbid its own kernels."""
    return running(backend) and not _portable.get()
