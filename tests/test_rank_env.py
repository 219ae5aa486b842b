"""Each launcher's variables say which rank this is; what does not fit is refused in one line."""

import pytest

from januslm.config import Refused
from januslm.training.rank_env import Place, first_host, place, resolve

TORCH = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
OMPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_NAMESPACE": "prterun-host-17@1",
}
HYDRA = {"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
BATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "77"}
STEP = BATCH | {
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_NODELIST": "gpu[07-08],gpu12",
}


@pytest.mark.parametrize(
    ("env", "found"),
    [
        ({}, Place(0, 1, 0, 1, "")),
        (TORCH, Place(1, 4, 1, 2, "RANK and WORLD_SIZE")),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Place(0, 1, 0, 0, "RANK and WORLD_SIZE")),
        (OMPI, Place(1, 2, 1, 2, "openmpi")),
        (HYDRA, Place(0, 2, 0, 2, "mpich")),
        (STEP, Place(3, 4, 1, 0, "srun")),
        (STEP | {"SLURM_STEP_NUM_TASKS": "8"}, Place(3, 8, 1, 0, "srun")),
        (BATCH | TORCH, Place(1, 4, 1, 2, "RANK and WORLD_SIZE")),  # torchrun in a batch script
        # One torchrun on each of two hosts, started by mpirun or srun.
        (OMPI | TORCH, Place(1, 4, 1, 2, "RANK and WORLD_SIZE")),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, Place(0, 1, 0, 1, "")),
    ],
)
def test_a_launcher_says_which_rank_this_is(env, found):
    assert place(env) == found


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is missing beside RANK = 0"),
        ({"WORLD_SIZE": "2"}, "RANK is missing beside WORLD_SIZE = 2"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK = 2 is no rank of WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "LOCAL_RANK is missing"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK must be a whole number from 0, got 'x'"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK must be a whole number from 0, got '-1'"),
        (
            OMPI | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"},
            "RANK = 0 and WORLD_SIZE = 1, but openmpi says rank 1 of 2",
        ),
        (OMPI | TORCH | {"WORLD_SIZE": "3"}, "WORLD_SIZE = 3, but openmpi says rank 1 of 2"),
        (OMPI | TORCH | {"WORLD_SIZE": "2", "RANK": "0"}, "but openmpi says rank 1 of 2"),
        (BATCH, "SLURM_NTASKS = 4, but this process was started alone: start it with srun"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_RANK is missing beside OMPI_COMM_WORLD_S"),
    ],
)
def test_what_does_not_fit_together_is_refused(env, message):
    with pytest.raises(Refused) as error:
        place(env)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_ranks_of_a_job_agree_where_they_meet():
    places = []
    for rank in ("0", "1"):
        env = OMPI | {"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_LOCAL_RANK": rank}
        resolve(env)
        assert (env["RANK"], env["WORLD_SIZE"], env["LOCAL_RANK"]) == (rank, "2", rank)
        places.append((env["MASTER_ADDR"], env["MASTER_PORT"]))
    assert places[0] == places[1]
    assert places[0][0] == "127.0.0.1"
    slurm = dict(STEP)
    resolve(slurm)
    assert slurm["MASTER_ADDR"] == "gpu07"
    assert 15000 <= int(slurm["MASTER_PORT"]) < 30000
    other = STEP | {"SLURM_JOB_ID": "78"}
    resolve(other)
    assert other["MASTER_PORT"] != slurm["MASTER_PORT"]


def test_nobody_guesses_where_ranks_meet():
    with pytest.raises(Refused, match="no MASTER_ADDR and MASTER_PORT for 4 ranks"):
        resolve(dict(TORCH))
    with pytest.raises(Refused, match="no MASTER_PORT for 4 ranks"):
        resolve(TORCH | {"MASTER_ADDR": "a"})
    with pytest.raises(Refused, match="MASTER_PORT must be a port from 1 to 65535, got 70000"):
        resolve(TORCH | {"MASTER_ADDR": "a", "MASTER_PORT": "70000"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu[07-09,12],login", "gpu07"),
        ("a,b", "a"),
        ("rack[2,5]-n1", "rack2-n1"),
        ("n[3]", "n3"),
    ],
)
def test_the_first_host_of_slurms_list(nodes, first):
    assert first_host(nodes) == first
