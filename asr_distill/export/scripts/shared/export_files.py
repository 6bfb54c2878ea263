"""What the scripts of every export share: the check against manifest.json, and the memory that was used."""

import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def peak_bytes():
    """The most memory that this process has held; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def checked_manifest():
    """manifest.json, after every file was compared with it."""
    try:
        manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {HERE / 'manifest.json'}: cannot be read ({error}); copy the whole directory again")
    if manifest.get("format_version") != 1:
        sys.exit(f"error: {HERE / 'manifest.json'}: format version {manifest.get('format_version')}, this script "
                 "reads 1; export again")
    for name, entry in manifest["files"].items():
        path = HERE / name
        if not path.is_file():
            sys.exit(f"error: {path}: missing; copy the whole directory again")
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != entry["sha256"]:
            sys.exit(f"error: {path}: changed or damaged since export (sha256 differs); copy the whole directory again")
    return manifest
