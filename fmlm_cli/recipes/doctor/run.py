"""What training will meet: versions, device, precision, attention, memory, disk, speed, what is missing."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, is_offline_mode

from fmlm_cli.config import DoctorSettings
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Facts, Note, Progress, counted, data_size, ignore
from fmlm_cli.model.build import VocabularyFacts, build_model
from fmlm_cli.model.isolation import isolates_documents
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.doctor.machine import Machine, Speed, look, measure
from fmlm_cli.recipes.doctor.packages import Extra, broken_requirements, extras, versions
from fmlm_cli.recipes.shared.speed import settle_attention
from fmlm_cli.recipes.shared.words import where_line

_LENGTH = 128  # positions of the rows that attention is tried on
_VOCABULARY = VocabularyFacts(size=1_000, pad=0, cls=1, sep=2)
_LITTLE_DISK = 5 << 30  # bytes: a few checkpoints of bert-base
_LITTLE_MEMORY = 4 << 30  # bytes: what training bert-base takes on a CPU


@dataclass(frozen=True)
class DoctorReport:
    """What was found; `cautions`: what may stand in the way, each with its remedy."""

    versions: Mapping[str, str]
    machine: Machine
    device: str
    attention: str
    speed: Speed
    extras: tuple[Extra, ...]
    cautions: tuple[str, ...]


def examine(settings: DoctorSettings, *, emit: Emit = ignore) -> DoctorReport:
    """Look at the machine as training would. Raises `UserError` for a device or precision that it has not."""
    runtime = Runtime.resolve(settings.device, settings.precision)
    if Path(settings.out).is_file():
        raise UserError(f"{settings.out} is a file, not a folder: name the folder that is to be written to")
    machine = look(Path(settings.out))
    emit(Progress("trying attention, matrices and memory", 0, 0, ""))
    model = MaskedLM(build_model("bert-tiny", _VOCABULARY, dropout=0.0, seed=0)).to(runtime.device)
    attention = settle_attention(model, runtime, _LENGTH, "auto", isolates_documents)
    speed = measure(runtime)
    emit(Progress("trying attention, matrices and memory", 1, 1, ""))
    report = DoctorReport(
        versions=versions(),
        machine=machine,
        device=where_line(runtime),
        attention=attention,
        speed=speed,
        extras=tuple(extras()),
        cautions=tuple(_cautions(machine, runtime)),
    )
    _tell(report, emit)
    return report


def _cautions(machine: Machine, runtime: Runtime) -> Iterator[str]:
    for text in broken_requirements():
        yield f"fmlm needs {text}: pip install --upgrade fmlm gets it"
    if machine.load is not None and machine.load > machine.cores + 1:
        yield (
            f"{machine.load:.0f} processes want {machine.cores:g} cores: speeds here are those of a share of "
            "the machine"
        )
    if runtime.device.type == "cpu" and machine.threads > machine.cores + 0.5:
        yield (
            f"torch would use {machine.threads} threads on {machine.cores:g} cores: set OMP_NUM_THREADS="
            f"{max(int(machine.cores), 1)}"
        )
    if runtime.device.type == "cpu" and machine.accelerators:
        yield f"there is a GPU ({machine.accelerators[0]}), and the device is the CPU: leave --device out"
    if machine.disk_free < _LITTLE_DISK:
        free = data_size(machine.disk_free)
        yield f"only {free} are free on the disk: a checkpoint takes 12 bytes a parameter"
    if machine.memory_free is not None and machine.memory_free < _LITTLE_MEMORY:
        yield f"only {data_size(machine.memory_free)} of memory are free"


def _tell(report: DoctorReport, emit: Emit) -> None:
    emit(Facts("versions", report.versions))
    machine, speed = report.machine, report.speed
    load = "" if machine.load is None else f", load {machine.load:.1f}"
    rows = {
        "device": report.device,
        "GPUs": ", ".join(machine.accelerators) or "none that torch sees",
        "attention": report.attention,
        "cores": f"{machine.cores:g}, {counted(machine.threads, 'thread')}{load}",
        "memory": f"{data_size(machine.memory_free)} free of {data_size(machine.memory)}"
        if machine.memory is not None and machine.memory_free is not None
        else "",
        "disk": f"{data_size(machine.disk_free)} free",
        "matrix products": f"{speed.matrix / 1e12:.3g} TFLOP/s, measured",
        "memory copies": f"{speed.memory / 1e9:.3g} GB/s, measured",
        "Hub": f"{'offline' if is_offline_mode() else 'asked where a Hub name is given'}, cache "
        f"{constants.HF_HUB_CACHE}",
    }
    emit(Facts("training here", {name: value for name, value in rows.items() if value}))
    emit(
        Facts(
            "extras",
            {
                extra.name: f"missing: {extra.lacks}; {extra.command}" if extra.lacks else "there"
                for extra in report.extras
            },
        )
    )
    for text in report.cautions:
        emit(Caution(text))
    if not report.cautions:
        emit(Note("nothing stands in the way"))
    if "OMP_NUM_THREADS" in os.environ:
        emit(Note(f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} is set"))
