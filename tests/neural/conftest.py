"""One thread: sums in a fixed order, so that the same seed gives the same bits."""

import torch

torch.set_num_threads(1)
