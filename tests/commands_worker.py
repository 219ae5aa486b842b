"""Runs commands in forks of a process that has torch and DeepSpeed loaded: seconds for dozens.

A line of stdin is [folder, module, words]; the answer is a line [exit code, what was printed].
"""

import json
import os
import runpy
import sys
import tempfile
import traceback


def main() -> None:
    import deepspeed  # noqa: F401
    import torch

    import pretrain.job  # noqa: F401

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes where errors do
    os.dup2(2, 1)
    for line in sys.stdin:
        with tempfile.TemporaryFile() as out:
            if not (pid := os.fork()):
                as_command(*json.loads(line), out.fileno())
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            out.seek(0)
            said = out.read().decode(errors="replace")
        print(json.dumps([code, said]), file=answers, flush=True)


def as_command(folder: str, module: str, words: list[str], out: int) -> None:
    """What `python -m MODULE WORDS` would do in that folder; this process ends here."""
    code = 1
    try:
        os.chdir(folder)
        for stream in (1, 2):
            os.dup2(out, stream)
        sys.argv = [module, *words]
        sys.modules.pop(module, None)  # else runpy warns
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
