"""What the tests share."""

import pytest
import torch


@pytest.fixture(scope="module")
def _one_thread():
    """So small a network is quickest so, and the numbers are the same wherever it runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
