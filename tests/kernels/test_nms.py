import numpy as np
from keras import ops

from keras_detect.kernels.nms import greedy_keep
from tests import goldens


def test_greedy_keep_follows_a_long_chain():
    # Each box suppresses the next: every other one stays, which takes as many rounds as there are boxes.
    chain = np.eye(33, k=-1, dtype="float32")[None]
    for function in goldens.both_modes(greedy_keep):
        keep = function(ops.convert_to_tensor(chain), ops.ones((1, 33), dtype="bool"))
        assert ops.convert_to_numpy(keep)[0].tolist() == [i % 2 == 0 for i in range(33)]
