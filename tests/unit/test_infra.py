"""What infra/ holds for other people's machinery, against what that says of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from typing import Any

import jsonschema
import pytest
import yaml
from support.project import ROOT

INFRA = ROOT / "infra"
RAY_UP = INFRA / "ray-up.yaml"


def cluster() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(RAY_UP.read_text())
    return read


def test_cluster_is_one_that_ray_up_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `ray up` does before it asks a cloud."""
    from pathlib import Path

    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(cluster(), schema)
    config = prepare_config(cluster())
    validate_config(config)
    assert config["file_mounts"] == {}  # of Ray's defaults, which nothing was taken out of
    with pytest.raises(jsonschema.ValidationError):
        validate_config(config | {"max_worker": 8})


def test_head_is_on_demand_without_gpu_and_workers_are_spot_and_come_when_asked() -> None:
    config = cluster()
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert "GPU" not in head["resources"] and head["max_workers"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert types
    for kind in types.values():
        assert kind["min_workers"] == 0 < kind["max_workers"] <= config["max_workers"]
        assert kind["resources"]["GPU"] == 1
        assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_cluster_names_nobodys_account() -> None:
    text = RAY_UP.read_text()
    assert not re.search(r"\d{12}|(ami|sg|subnet|vpc|key|i)-[0-9a-f]{6,}|AKIA|arn:", text)


def test_cluster_starts_ray_as_kubernetes_does() -> None:
    config = cluster()
    head, worker = (config[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker"))
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--metrics-export-port=8080" in head and "--metrics-export-port=8080" in worker
    assert "--dashboard-host=127.0.0.1" in head  # whoever reaches it may run what they like


@pytest.fixture
def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((INFRA / "grafana/moderay.json").read_text())
    return read


def test_dashboard_says_of_each_panel_what_it_shows_and_in_which_unit(
    dashboard: dict[str, Any],
) -> None:
    assert dashboard["uid"] == "moderay" and dashboard["version"] >= 1
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert len({panel["title"] for panel in panels}) == len(panels) >= 15
    for panel in panels:
        assert len(panel["description"]) > 20 and panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["legendFormat"] and '{SessionName=~"$cluster"' in target["expr"]


def test_dashboard_asks_the_prometheus_that_is_chosen(dashboard: dict[str, Any]) -> None:
    first, second = dashboard["templating"]["list"]
    assert (first["name"], first["type"]) == ("datasource", "datasource")
    assert second["query"]["query"] == "label_values(ray_moderay_rows_total, SessionName)"
    found = re.findall(r'"uid": "([^"]*)"', json.dumps(dashboard))
    assert set(found) == {"moderay", "${datasource}"}


def test_panels_do_not_lie_over_each_other(dashboard: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_rules_are_those_of_prometheus() -> None:
    command = ["promtool", "check", "rules", str(INFRA / "alerts.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
