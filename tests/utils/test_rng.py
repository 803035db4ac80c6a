"""Streams of random numbers: the same for the same seed, stream and counters, else independent."""

import itertools

import numpy as np
import torch

from sln.utils.rng import STREAMS, numpy_generator, torch_generator


def first_numbers(arguments):
    return {numpy_generator(seed, stream, *counters).random() for seed, stream, counters in arguments}


def test_equal_arguments_give_equal_numbers_and_all_others_different_ones():
    arguments = list(itertools.product((0, 1), STREAMS, ((), (1,), (2,), (0, 1))))
    drawn = first_numbers(arguments)
    assert len(drawn) == len(arguments)
    assert drawn == first_numbers(arguments)
    first, again = (torch.rand(5, generator=torch_generator(3, "mixup", 7)) for _ in range(2))
    assert torch.equal(first, again)


def test_the_numbers_of_a_stream_never_change():
    """Runs on disk depend on them: a new stream goes to the end of STREAMS."""
    assert STREAMS[:3] == ("initialisation", "inherent noise", "shuffling")
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([5, 2, 9]))).random(4)
    assert np.array_equal(numpy_generator(5, "shuffling", 9).random(4), expected)


def test_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    torch.rand(3, generator=torch_generator(0, "bootstrap"))
    assert torch.equal(torch.random.get_rng_state(), state)
