"""The package's own names are loaded when they are first used."""

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

import sln


def test_the_loss_loads_nothing_that_it_does_not_need():
    heavy = ("pandas", "sklearn", "scipy", "matplotlib", "joblib", "sln.relabel", "sln.study", "sln.runs")
    code = f"import sys, sln.nn; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_loads_no_package_that_only_some_commands_need():
    heavy = ("sklearn", "scipy", "matplotlib", "sln.analysis", "sln.reproduce")
    code = f"import sys, sln.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_name_is_there_and_is_what_editors_see():
    (block,) = [node for node in ast.parse(inspect.getsource(sln)).body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert set(seen) == set(sln.__all__)
    for name, module in seen.items():
        assert getattr(sln, name) is getattr(importlib.import_module(module), name)
    assert {*sln.__all__, "__version__"} <= set(dir(sln))
    everything = {}
    exec("from sln import *", everything)
    assert set(sln.__all__) <= set(everything)


def test_another_name_is_no_attribute_and_a_module_is_found():
    with pytest.raises(AttributeError, match="module 'sln' has no attribute 'Studdy'"):
        _ = sln.Studdy
    with pytest.raises(ImportError, match="cannot import name 'Studdy'"):
        exec("from sln import Studdy")
    exec("from sln import Study, analysis, explore, plots")
