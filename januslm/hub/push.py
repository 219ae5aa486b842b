"""An exported folder, handed to huggingface_hub."""

from pathlib import Path

from januslm.config import Refused, json_table
from januslm.hub.export import CONFIG, MARK, WEIGHTS


def push(out: Path, repo: str, private: bool) -> str:
    """Create the repository unless it is there, upload the folder; returns what is to be said.

    Refused for a folder that `export` did not write, without a token, and for all that the hub, or
    the way to it, refuses.
    """
    if not (out / CONFIG).is_file() or MARK not in json_table(out / CONFIG):
        raise Refused(f"{out}: not a folder that `export RUN OUT --to hf` wrote")
    if not (out / WEIGHTS).is_file():
        raise Refused(f"{out}: {WEIGHTS} is missing; export it anew")
    import huggingface_hub as hub  # half a second

    if hub.get_token() is None:
        raise Refused("no token for the hub: set HF_TOKEN, or call `hf auth login` once")
    try:
        hub.utils.validate_repo_id(repo)
        made = hub.create_repo(repo, private=private, exist_ok=True)
        done = hub.upload_folder(
            repo_id=made.repo_id, folder_path=out, commit_message="A model exported by januslm"
        )
    except (hub.errors.HTTPError, OSError, ValueError) as error:
        raise Refused(f"{repo}: not pushed to {hub.constants.ENDPOINT}: {_line(error)}") from None
    return f"pushed {out} to {made.repo_id}: {done.commit_url}"


def _line(error: Exception) -> str:
    """What a hub says, on one line, without the name of the request."""
    said = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return " ".join(said.split())[:300]
