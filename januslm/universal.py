"""A checkpoint's universal form, which any number of processes can load."""

import shutil
import subprocess
import sys
from pathlib import Path

from januslm.checkpoint import STATE, Found
from januslm.config import Refused


def converted(found: Found, stage: int) -> Path:
    """The universal form, in a hidden folder beside it, by DeepSpeed's own tool and process."""
    folder = found.folder.parent / f".universal-{found.folder.name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    command += ["--input_folder", str(found.folder / STATE), "--output_folder", str(folder / STATE)]
    command += ["--inject_missing_state"] if stage < 3 else []
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        why = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        raise Refused(f"{found.folder} could not be made universal: {why}; {' '.join(command)}")
    return folder
