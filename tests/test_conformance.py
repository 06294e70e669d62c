"""The conformance kit over every kind that is on disk: a new file is tested with no edit here."""

from __future__ import annotations

import pytest

from sonde.base.lookup import find, kinds
from sonde.contracts.backbone import Backbone
from sonde.contracts.input import Input
from sonde.contracts.target import Target
from sonde.data.source import Source
from sonde.testing import check_input, check_network, check_source, check_target, check_task


@pytest.mark.parametrize("kind", kinds("sources"))
def test_source(kind):
    check_source(find("sources", kind, Source))


@pytest.mark.parametrize("kind", kinds("inputs"))
def test_input(kind):
    check_input(find("inputs", kind, Input))


@pytest.mark.parametrize("kind", kinds("targets"))
def test_target(kind):
    check_target(find("targets", kind, Target))


@pytest.mark.parametrize("kind", kinds("networks"))
def test_network(kind):
    check_network(find("networks", kind, Backbone))


@pytest.mark.parametrize("given", kinds("inputs"))
def test_every_input_with_every_target_and_network_that_fit(given):
    """inputs x targets x networks: whatever fits, trains."""
    trained = [
        (target, network)
        for target in kinds("targets")
        for network in kinds("networks")
        if check_task(
            find("inputs", given, Input), find("targets", target, Target), find("networks", network, Backbone)
        )
    ]
    assert len(trained) >= 3, trained
