"""All runs below a folder in a browser, curves, texts, settings: TensorBoard until it is stopped.

PROGRAM tensorboard                        all runs below runs/
PROGRAM tensorboard runs/tiny --port 6010
PROGRAM tensorboard --host 0.0.0.0         for other machines, too: anyone there may read it

Scalars has every curve; Custom scalars those that belong together; Text what each pass of decoding
has changed; HParams the runs side by side.  Ctrl-C, SIGTERM or SIGHUP end it, with exit code 0;
a mistake, such as a port that is taken, is one line and exit code 2.
"""

import importlib.util
import logging
import signal
import sys
import threading
from pathlib import Path

from januslm.cli.command import answered, called, parser, whole
from januslm.config import Refused

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PORTS = 65535


def main() -> int:
    known = parser("tensorboard", __doc__ or "")
    known.add_argument("folder", nargs="?", default="runs", metavar="FOLDER", help="default: runs")
    known.add_argument("--port", type=whole, help="default: the first free one from 6006 on")
    known.add_argument("--host", default="localhost", help="default: localhost")
    options = known.parse_args()
    return answered(lambda: serve(Path(options.folder), options.host, options.port))


def serve(folder: Path, host: str, port: int | None) -> int:
    """Answer browsers until a signal comes."""
    if not folder.is_dir():
        raise Refused(f"{folder}: no such folder; name one with runs below it")
    if port is not None and not 1 <= port <= PORTS:
        raise Refused(f"--port must be from 1 to {PORTS:,}, got {port}")
    over = threading.Event()
    names: list[str] = []

    def stop(number: int, _frame: object) -> None:
        names.append(called(number))
        over.set()

    for number in STOPS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, stop)
    url = _started(folder, host, port)
    print(f"TensorBoard on {url} reads {folder}; Ctrl-C ends it", flush=True)
    over.wait()
    print(f"ended by {names[0]}", flush=True)
    return 0


def _started(folder: Path, host: str, port: int | None) -> str:
    """Where it answers, in a thread of its own; Refused where it cannot."""
    from tensorboard import assets, default, program

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    server = program.TensorBoard(default.get_plugins(), assets.get_default_assets_zip_provider())
    fast = importlib.util.find_spec("tensorboard_data_server") is not None
    given = ["--logdir", str(folder), "--host", host, "--reload_interval", "5"]
    given += ["--load_fast", str(fast).lower()]  # its own choice prints a note
    given += ["--port", str(port)] if port else []
    server.configure(argv=["tensorboard", *given])
    try:
        return server.launch()
    except program.TensorBoardServerException as error:
        raise Refused(f"TensorBoard cannot answer: {error.msg}") from None


if __name__ == "__main__":
    sys.exit(main())
