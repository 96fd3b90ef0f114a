"""What the environment says of how a process was launched."""

import pytest

from fmlm_cli.engine.ranks.launch import RENDEZVOUS, Launch, first_host, read_launch
from fmlm_cli.errors import UserError

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[07,09-12],login",
    "SLURM_NTASKS": "8",
}
SBATCH = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_NODELIST": "gpu07"}


def test_torchrun() -> None:
    assert read_launch(TORCHRUN) == Launch(5, 8, 1, 4, "env://", "torchrun")


def test_fmlm_itself() -> None:
    own = {**TORCHRUN, RENDEZVOUS: "/tmp/x/store"}
    assert read_launch(own) == Launch(5, 8, 1, 4, "file:///tmp/x/store", "fmlm")


def test_a_step_of_slurms() -> None:
    launch = read_launch(SLURM)
    assert launch is not None
    host, port = launch.rendezvous.removeprefix("tcp://").split(":")
    assert launch == Launch(5, 8, 1, 4, f"tcp://gpu07:{port}", "srun") and host == "gpu07"
    assert 1024 < int(port) < 32_768  # neither the system's own nor those that it hands out
    another = read_launch({**SLURM, "SLURM_STEP_ID": "3"})
    assert another is not None and another.rendezvous != launch.rendezvous


def test_torchruns_variables_stand_over_slurms() -> None:
    """As where srun starts one torchrun on each machine."""
    launch = read_launch({**SLURM, **TORCHRUN})
    assert launch is not None and launch.by == "torchrun"


@pytest.mark.parametrize(
    "environment",
    [{}, SBATCH, {**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, {"RANK": "0", "WORLD_SIZE": "1"}],
    ids=["nothing", "sbatch without srun", "srun -n1", "a world of one"],
)
def test_a_process_alone(environment: dict[str, str]) -> None:
    assert read_launch(environment) is None


def test_one_process_to_a_machine_needs_no_local_rank() -> None:
    plain = {name: value for name, value in TORCHRUN.items() if not name.startswith("LOCAL")}
    assert read_launch(plain) == Launch(5, 8, 0, 1, "env://", "torchrun")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"RANK": None}, "RANK is not set"),
        ({"WORLD_SIZE": None}, "WORLD_SIZE is not set"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is not set"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT is 'http', not a number"),
        ({"RANK": "-1"}, "RANK is '-1', not a number"),
        ({"RANK": "8"}, "process 8 of 8"),
        ({"LOCAL_RANK": "4"}, "number 4 of 4"),
        ({"WORLD_SIZE": "0"}, "of 0"),
    ],
)
def test_what_is_half_set_or_cannot_be_is_refused(changed: dict[str, str | None], said: str) -> None:
    environment = {name: value for name, value in {**TORCHRUN, **changed}.items() if value is not None}
    with pytest.raises(UserError, match=said) as caught:
        read_launch(environment)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST"])
def test_a_step_of_slurms_that_is_half_set(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is not set"):
        read_launch({key: value for key, value in SLURM.items() if key != name})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu07", "gpu07"),
        ("gpu07,gpu08", "gpu07"),
        ("gpu[007-012,020]", "gpu007"),
        ("rack[2,4]-node[10-11].site,other", "rack2-node10.site"),
        ("a,gpu[1-2]", "a"),
    ],
)
def test_the_first_of_a_list_of_machines(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.mark.parametrize("nodes", ["", ",", "gpu[", "gpu[]", "gpu[a-b]", "gpu[1"])
def test_what_is_no_list_of_machines(nodes: str) -> None:
    with pytest.raises(UserError, match="names no machine"):
        first_host(nodes)
