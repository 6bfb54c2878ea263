"""Install what tests use beside pip's packages, where this machine lets us: Chromium, for pages as people see them.

`make test` calls this. Where it cannot be had, the tests that need it say so and are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def main() -> None:
    if any(shutil.which(name) for name in BROWSERS):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        print("make test: no Chromium here, and no right to install it: the tests of pages are skipped")
        return
    print("make test: installing Chromium (apt-get)")
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "check": False}
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, **quiet)
    done = subprocess.run(["apt-get", "install", "-qq", "--no-install-recommends", "chromium"], env=environment,
                          **quiet)
    if done.returncode:
        print("make test: Chromium could not be installed: the tests of pages are skipped")


if __name__ == "__main__":
    main()
