"""The real server, to which the folder in FOLDMINT_TEST_READ_ONLY is mounted read-only, as a pod's volume is.

python -m helpers.servers.read_only_server --model FOLDER --listen 127.0.0.1:0
"""

import os
import sys

_MOUNT = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'

if __name__ == "__main__":
    namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    server = [sys.executable, "-m", "foldmint_server.cli", *sys.argv[1:]]
    # The process stays the same one, so that whoever started it can stop it.
    os.execvp(namespace[0], [*namespace, "sh", "-c", _MOUNT, os.environ["FOLDMINT_TEST_READ_ONLY"], *server])  # noqa: S606
